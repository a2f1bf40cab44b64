"""Commands run in this process, and the short runs that tests of finished runs train by them."""

import re
import shlex

import pytest

from foretune.tuner.cli.main import main
from foretune.tuner.config.resolve import resolve
from foretune.tuner.records.run_json import run_id

SHORT = {
    "steps": 8,
    "eval_every": 4,
    "telemetry_every": 4,
    "batch_size": 4,
    "micro_batch_size": 4,
    "schedule.warmup_steps": 2,
}
TEXT = {**SHORT, "model.depth": 1, "data.sequence_length": 16, "data.validation_sequences": 8}
DIGITS = {**SHORT, "data.name": "digits", "model.image_size": 8}


def call(capsys, line, **names):
    """Runs a command line, in which {name} stands for a value; returns code, stdout and stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([word.format(**names) for word in shlex.split(line)])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return end.value.code, out, err


def refused(capsys, line, **names):
    """Runs a command that must be refused; returns its one sentence.

    Nothing else is printed, but the first line of a sweep: it names its space and its folder.
    """
    code, out, err = call(capsys, line, **names)
    assert code == 2
    first = r"(foretune sweep \S+ -> .+\n)?" if line.startswith("sweep ") else ""
    assert re.fullmatch(first, out), out
    assert err.startswith("foretune: ")
    assert err.count("\n") == 1
    return err


def train(out, preset, changes, *, code=0):
    """Trains a run by the command, which ends with a code; returns its folder."""
    sets = " ".join(f"{name}={value}" for name, value in changes.items())
    with pytest.raises(SystemExit) as end:
        main(shlex.split(f"train {preset} --out '{out}' --device cpu --set {sets}"))
    assert end.value.code == code
    return out / "runs" / run_id(resolve(preset, overrides=changes))


def printed_numbers(out):
    """The three losses and the logit difference that the command printed."""
    losses = re.search(r"trained ([\d.]+) \(recorded ([\d.]+)\), read .* file ([\d.]+)", out)
    difference = re.search(r"largest logit difference: (\S+) over ([\d,]+) predictions", out)
    assert losses, out
    assert difference, out
    return [*map(float, losses.groups()), float(difference[1])]
