"""A space of a user's own is a file, a scheduler one function and one line: from outside."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from foretune.tuner.cli.main import main
from foretune.tuner.planning.execution import Execution
from foretune.tuner.planning.spaces import named_preset, named_space
from foretune.tuner.sweeps.schedulers import SCHEDULERS, Pace, RayScheduler, make_scheduler

SPACE = '''
"""Does decay matter?"""
from ray import tune

PRESET = "vit-tiny"
SPACE = {"optimizer.weight_decay": tune.grid_search([0.0, 1e-4, 1e-3]), "optimizer.lr": 1e-2}
'''


class StopAbove(FIFOScheduler):
    """Ends what is above 3 nats after the grace period."""

    def __init__(self, grace_steps: int):
        super().__init__()
        self.grace_steps, self.seen = grace_steps, []

    def on_trial_result(self, tune_controller, trial, result):
        self.seen.append(trial.trial_id)
        bad = result["step"] >= self.grace_steps and result["objective"] > 3
        return TrialScheduler.STOP if bad else TrialScheduler.CONTINUE


def above(pace: Pace) -> RayScheduler:
    return RayScheduler(
        "limit",
        lambda: StopAbove(pace.grace_steps),
        "was above 3 nats",
        lambda bracket, entrant, report: bracket.on_trial_result(None, entrant, report),
    )


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEDULERS, "above", above)


def test_a_file_is_a_space_with_its_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "decay_of_a_user.py"
    path.write_text(SPACE)
    assert named_preset(str(path)) == "vit-tiny"
    assert set(named_space(str(path))) == {"optimizer.weight_decay", "optimizer.lr"}
    words = ["sweep", str(path), "--sizes", "16", "--dry-run", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0
    assert "3 trials" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_scheduler_of_one_s_own_stops_runs_and_says_why(own):
    groups = {"good": "size 16", "bad": "size 16"}
    scheduler = make_scheduler(
        "above", groups=groups, max_steps=20, grace_steps=5, reduction_factor=2.0
    )
    assert scheduler is not None
    decisions = {}
    for name, objective in (("good", 2.0), ("bad", 4.0)):
        trial = SimpleNamespace(trial_id=name, config={"run_id": name})
        scheduler.on_trial_add(None, trial)
        for step in (2, 5):
            result = {"step": step, "objective": objective}
            decisions[name, step] = scheduler.on_trial_result(None, trial, result)
    assert [key for key, each in decisions.items() if each == TrialScheduler.STOP] == [("bad", 5)]
    assert scheduler.reasons == {"bad": "limit at step 5: objective 4 was above 3 nats of size 16"}


def test_the_command_line_takes_it_and_refuses_what_is_not_there(
    own, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["sweep", "lr", "--sizes", "16", "--dry-run", "--out", str(tmp_path / "out")]
    for name, code in (("above", 0), ("abov", 2)):
        with pytest.raises(SystemExit) as end:
            main([*words, "--scheduler", name])
        assert end.value.code == code
    assert Execution(scheduler="above").scheduler == "above"
    err = " ".join(capsys.readouterr().err.split())
    assert "--scheduler must be one of none, asha, median, above, got 'abov'." in err
    assert "Did you mean above?" in err
