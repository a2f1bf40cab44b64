"""A forecast ends runs: at the very step, the same after a resume, and it says where it can't."""

import json
from dataclasses import dataclass

import pytest
import torch
from commands import call, refused
from short_runs import Bigram, assert_finite, finish, without_time
from torch import nn

from foretune.analysis.inside_run.landmark import read_landmarks
from foretune.argument_error import flags
from foretune.models import Tap
from foretune.tuner.cli.main import flag
from foretune.tuner.config.override import override
from foretune.tuner.config.resolve import resolve
from foretune.tuner.config.run import Run
from foretune.tuner.planning.execution import Execution
from foretune.tuner.planning.forecast_stop import is_audited, judge_in, limits, stopper_of
from foretune.tuner.records.files import MetricsFile, write_json
from foretune.tuner.records.outcome_json import RunEnd
from foretune.tuner.records.run_json import run_id
from foretune.tuner.training.train import Training, train

torch.set_num_threads(1)
STEPS = 150
"""With sequences, depth and batches as short as the fitted runs had them."""
SHORT = {"batch_size": 4, "micro_batch_size": 4, "data.sequence_length": 32, "model.depth": 2}
TOO_HIGH, GOOD = 3e-1, 1e-2
PER_SQUARE = 12 * SHORT["model.depth"]
"""Parameters of a model by the square of its width."""
STOP = Execution(stopper="forecast", audit=0.0)
AUDIT = Execution(stopper="forecast", audit=1.0)


def lm(text, lr=GOOD, *, size=32, steps=STEPS, **changes):
    data = {"data.name": "text", "data.path": str(text), "data.validation_sequences": 8}
    fields = {"steps": steps, "eval_every": 5, "optimizer.lr": lr, **SHORT, **data, **changes}
    return resolve("lm-tiny", size=size, overrides=fields)


def trained(run, folder, execution):
    """Trains a run into a folder; returns outcome and rows."""
    rows = []
    judge = judge_in(folder, run, stopper_of(execution))
    outcome = train(run, lambda s, row: rows.append((s, dict(row))), device="cpu", judge=judge)
    assert_finite(rows)
    return outcome, rows


@pytest.fixture(scope="module")
def stopped(text, tmp_path_factory):
    return trained(lm(text, TOO_HIGH), tmp_path_factory.mktemp("stopped"), STOP)


@pytest.fixture(scope="module")
def audited(text, tmp_path_factory):
    return trained(lm(text, TOO_HIGH), tmp_path_factory.mktemp("audited"), AUDIT)


def test_a_high_learning_rate_is_stopped_at_the_very_step_with_a_reason(stopped):
    outcome, rows = stopped
    forecast = outcome.forecast
    assert outcome.outcome == "stopped"
    assert outcome.step == forecast["step"] + 1 < 0.3 * STEPS
    assert outcome.reason == forecast["reason"]
    start = f"forecast to end unstable with probability {forecast['probability']:.3f}, above "
    assert outcome.reason.startswith(
        f"{start}{forecast['threshold']:.3f}: largest attention logit "
    )
    assert forecast["probability"] > forecast["threshold"]
    assert not forecast["audited"]
    *before, (last, row) = rows
    assert [step for step, _ in before] == list(range(outcome.step))
    # How far it got is a bound of its end.
    assert (last, row.keys()) == (outcome.step, {"val_loss", "tokens_seen", "seconds"})
    assert outcome.final_val_loss == row["val_loss"] < outcome.loss_at_init
    assert outcome.objective == outcome.final_val_loss
    json.dumps(RunEnd.of("a", outcome).to_json(), allow_nan=False)


def test_a_good_learning_rate_is_not(text, tmp_path):
    outcome, _ = trained(lm(text, GOOD), tmp_path, STOP)
    assert (outcome.outcome, outcome.step, outcome.forecast) == ("finished", STEPS, None)


def test_an_audited_run_goes_on_to_the_bits_of_one_that_nobody_judged(text, stopped, audited):
    outcome, rows = audited
    assert (outcome.outcome, outcome.step) == ("finished", STEPS)
    assert outcome.forecast == {**stopped[0].forecast, "audited": True}
    alone = []
    train(lm(text, TOO_HIGH), lambda step, row: alone.append((step, row)), device="cpu")
    assert without_time(rows) == without_time(alone)


@pytest.mark.slow
@pytest.mark.parametrize("execution", [STOP, AUDIT])
def test_a_run_that_goes_on_from_any_checkpoint_is_stopped_at_the_same_step(
    text, tmp_path, stopped, audited, execution
):
    whole, rows = stopped if execution is STOP else audited
    run, slices = lm(text, TOO_HIGH), whole.forecast["step"] // 5
    for number in {1, slices, slices + 1} - ({slices + 1} if execution is STOP else set()):
        folder = tmp_path / str(number)
        metrics = MetricsFile(folder / "metrics.jsonl")
        judge = judge_in(folder, run, stopper_of(execution))
        training = Training(run, metrics, device="cpu", judge=judge)
        for _ in range(number):
            training.advance()
        training.save(folder)
        training.advance()  # Rows beyond the checkpoint, which a kill leaves.
        metrics.close()
        again = MetricsFile(folder / "metrics.jsonl", keep_below=5 * number)
        again.close()
        seen = []
        judge = judge_in(folder, run, stopper_of(execution))
        training = Training(
            run, lambda s, row, seen=seen: seen.append((s, dict(row))), device="cpu",
            restore=folder, judge=judge,
        )  # fmt: skip
        outcome = finish(training)
        assert (outcome.outcome, outcome.step) == (whole.outcome, whole.step)
        assert outcome.forecast == whole.forecast
        assert without_time(seen) == without_time(rows[5 * number :])


def test_which_runs_are_audited_hangs_on_their_ids_alone():
    names = [f"{number:012x}" for number in range(4000)]
    some = {name for name in names if is_audited(name, 0.05)}
    assert 150 < len(some) < 250
    assert some == {name for name in reversed(names) if is_audited(name, 0.05)}
    assert some < {name for name in names if is_audited(name, 0.2)}
    assert not any(is_audited(name, 0.0) for name in names)
    assert all(is_audited(name, 1.0) for name in names)


@dataclass(frozen=True)
class Attends:
    """A user's own model that shows its attention, and has none of the fitted fields."""

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Embedding(256, 8), nn.Linear(8, 256), Tap("attention"))


def own(text, model):
    return override(Run(model=model), {"data.name": "text", "data.path": str(text)})


def test_where_the_forecast_cannot_tell_it_says_why(text):
    stop = stopper_of(STOP)
    assert stop is not None
    high = read_landmarks().about["horizon"]
    deep = int(high["model.depth"][1]) + 7
    runs = {
        "it reads attention logits, which the model doesn't have": [
            resolve("cnn-tiny"), own(text, Bigram()), resolve("cnn-tiny", overrides={"seed": 1}),
        ],
        f"it was fitted on runs with model.depth {spoken(high['model.depth'])}, got {deep}": [
            lm(text, **{"model.depth": deep}), lm(text, 0.1, **{"model.depth": deep}),
        ],
        f"it was fitted on runs with model.depth {spoken(high['model.depth'])}, which this run "
        f"has not": [own(text, Attends())],
        f"telemetry_every={STEPS} reads the attention logits of {STEPS} steps once, before the "
        f"first update": [lm(text, telemetry_every=STEPS)],
    }  # fmt: skip
    every = [lm(text), *(run for some in runs.values() for run in some)]
    sentences = [
        f"stopper forecast cannot tell for {len(some)} of {len(every)} runs, which run without "
        f"it: {why}."
        for why, some in runs.items()
    ]
    assert limits(stop, every) == sentences
    with flags(flag):
        assert limits(stop, every) == [f"--{sentence}" for sentence in sentences]
    assert [stop.judge(run) is None for run in every] == [False] + [True] * (len(every) - 1)


def spoken(bounds):
    low, high = bounds
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


@pytest.mark.parametrize(("times", "far"), [(2, False), (20, True)])
def test_sizes_beyond_the_fitted_ones_are_judged_and_said_to_be(text, times, far):
    stop = stopper_of(STOP)
    assert stop is not None
    largest = read_landmarks().about["horizon"]["n_params"][1]
    size = 16 * round((times * largest / PER_SQUARE) ** 0.5 / 16)
    (sentence,) = limits(stop, [lm(text), lm(text, size=size)])
    assert sentence.startswith("stopper forecast extrapolates for 1 of 2 runs: ")
    assert ("never tested" in sentence) == far
    assert stop.judge(lm(text, size=size)) is not None


def test_sizes_far_beyond_cannot_be_judged(text):
    stop = stopper_of(STOP)
    assert stop is not None
    largest = read_landmarks().about["horizon"]["n_params"][1]
    size = 16 * round((70 * largest / PER_SQUARE) ** 0.5 / 16)
    (sentence,) = limits(stop, [lm(text, size=size)])
    assert "cannot tell for 1 of 1 runs" in sentence
    assert "n_params" in sentence


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"stopper": "oracle"}, "stopper must be one of none, forecast, got 'oracle'"),
        ({"stopper": "forecast", "audit": 1.5}, "audit must be a share from 0 to 1, got 1.5"),
        ({"audit": 0.5}, "false_stops and audit must go with a stopper"),
        ({"skip_above": 0.9}, "skip_above and skip_from must be given together"),
        ({"skip_from": "here"}, "skip_above and skip_from must be given together"),
        ({"skip_above": 0.0}, "skip_above must be a probability above 0"),
        ({"skip_above": float("nan")}, "skip_above must be a probability above 0"),
    ],
)
def test_bad_settings_are_sentences(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        Execution(**fields)


def command(text, out, lr, more=""):
    short = " ".join(f"{name}={value}" for name, value in SHORT.items())
    settings = f"steps={STEPS} optimizer.lr={lr} data.name=text data.path='{text}'"
    return (
        f"train lm-tiny --size 32 --device cpu --out '{out}' --stopper forecast {more} "
        f"--set {settings} data.validation_sequences=8 eval_every=5 {short}"
    )


def test_train_stops_by_the_same_rule(text, tmp_path, capsys, stopped):
    code, out, _ = call(capsys, command(text, tmp_path, TOO_HIGH, "--audit 0"))
    assert code == 0
    (path,) = tmp_path.glob("runs/*/outcome.json")
    found = json.loads(path.read_text())
    assert (found["outcome"], found["step"]) == ("stopped", stopped[0].step)
    assert found["forecast"] == stopped[0].forecast
    assert f"stopped: {stopped[0].reason}" in out


def test_train_goes_on_with_what_it_had_foretold(text, tmp_path, capsys, audited):
    """A run that is audited, from a checkpoint after its forecast."""
    run = lm(text, TOO_HIGH)
    folder = tmp_path / "runs" / run_id(run)
    metrics = MetricsFile(folder / "metrics.jsonl")
    training = Training(run, metrics, device="cpu")
    for _ in range(audited[0].forecast["step"] // 5 + 2):
        training.advance()
    metrics.close()
    training.save(folder / "checkpoint")
    write_json(folder / "run.json", {})
    _, out, _ = call(capsys, command(text, tmp_path, TOO_HIGH, "--audit 1"))
    found = json.loads((folder / "outcome.json").read_text())
    assert (found["outcome"], found["forecast"]) == ("finished", audited[0].forecast)
    assert f"audited, so it ran on: {audited[0].forecast['reason']}\nfinished: " in out


def test_a_rate_that_was_not_calibrated_is_one_sentence_and_no_folder(text, tmp_path, capsys):
    err = refused(capsys, command(text, tmp_path / "out", GOOD, "--false-stops 0.03"))
    assert err.startswith("foretune: --false-stops must be one of the rates that the forecast was")
    assert not (tmp_path / "out").exists()
