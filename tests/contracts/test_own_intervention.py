"""An intervention of a user's own is one row: everything else follows."""

from pathlib import Path

import pytest
from short_runs import follow, small

from benchmarks.science.intervention_page import table
from foretune.tuner.cli.list import list_names
from foretune.tuner.config.intervention import Intervention, Own
from foretune.tuner.config.interventions import INTERVENTIONS
from foretune.tuner.config.resolve import resolve
from foretune.tuner.planning.spaces import named_space

ROW = Intervention(
    "AdamW's beta2 is 0.9, so that the second moment follows sudden gradients sooner.",
    sets={"optimizer.beta2": 0.9},
    acts="later",
    source="a user, 2026",
    zero={"optimizer.beta2": Own("optimizer.beta2")},
)
OF_THE_RUN = Intervention(
    "Evaluates once, at the end.", sets=lambda run: {"eval_every": run.steps}, acts="later"
)


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INTERVENTIONS, "low-beta2", ROW)
    monkeypatch.setitem(INTERVENTIONS, "evaluate-late", OF_THE_RUN)


def test_it_trains_alone_and_with_others(tmp_path: Path):
    text = tmp_path / "a.txt"
    text.write_bytes(Path(__file__).read_bytes() * 8)
    start = small(text, {"steps": 2, "schedule.warmup_steps": 1})
    names = ["qk-layernorm", "low-beta2", "evaluate-late"]
    run = resolve(start, interventions=names)
    assert (run.optimizer.beta2, run.model.qk_norm, run.eval_every) == (0.9, True, 2)
    outcome, rows, training = follow(run)
    assert (outcome.outcome, training.step) == ("finished", 2)
    assert {"loss", "val_loss", "max_attention_logit"} <= set().union(*(row for _, row in rows))


def test_it_is_listed_swept_and_in_the_table(capsys: pytest.CaptureFixture[str]):
    list_names("interventions")
    assert f"low-beta2            {ROW.about}\n" in capsys.readouterr().out
    assert "low-beta2" in named_space("interventions")["intervention"]["grid_search"]
    row = "| `low-beta2` | `optimizer.beta2=0.9` |"
    assert any(
        line.startswith(row) and line.endswith("| the run's `optimizer.beta2` | a user, 2026 |")
        for line in table().splitlines()
    )


def test_it_is_refused_as_those_that_are_there():
    with pytest.raises(ValueError, match="given once, got low-beta2 twice"):
        resolve("lm-tiny", interventions=["low-beta2", "low-beta2"])
    with pytest.raises(ValueError, match=r"Did you mean low-beta2\?"):
        resolve("lm-tiny", interventions=["low-beta"])
