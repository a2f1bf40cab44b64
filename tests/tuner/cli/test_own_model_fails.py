"""A user's model that fails: one sentence with the place, the traceback in a file, exit code 3."""

import json
import shlex
import sys

import pytest
from commands import call

from foretune.tuner.cli.main import main

MODEL = """
from dataclasses import dataclass
import torch
from torch import nn
from foretune.tuner import Run

class Net(nn.Module):
    def __init__(self, fails, at):
        super().__init__()
        self.embed, self.head = nn.Embedding(256, 8), nn.Linear(8, 256)
        self.fails, self.at, self.calls = fails, at, 0

    def forward(self, tokens):
        self.calls += 1
        if self.calls > self.at:
            if self.fails == "index":
                return [][3]  # place: index
            if self.fails == "runtime":
                raise RuntimeError("two\\n lines")  # place: runtime
            if self.fails == "value":
                raise ValueError("not in the mood")  # place: value
            if self.fails == "library":
                return self.head(self.embed(tokens).mT)  # place: library
            if self.fails == "shape":
                return self.embed(tokens)[:, :3]
        return self.head(self.embed(tokens))

@dataclass(frozen=True)
class Config:
    fails: str = ""
    at: int = 7

    def build(self):  # place: build
        if self.fails == "build":
            raise ValueError("no such width")  # place: raised
        return 3 if self.fails == "int" else Net(self.fails, self.at)

RUN = Run(model=Config())
"""


@pytest.fixture
def own(tmp_path, request):
    path = tmp_path / f"own_model_{abs(hash(request.node.name)) % 10**8}.py"
    path.write_text(MODEL)
    yield path
    sys.modules.pop(path.stem, None)


@pytest.fixture
def line(own, tmp_path, text):
    steps = "steps=8 eval_every=4 telemetry_every=4 schedule.warmup_steps=1 batch_size=4"
    sets = f"{steps} micro_batch_size=4 data.name=text data.path='{text}'"
    sets += " data.validation_sequences=4 data.sequence_length=16"
    return f"train '{own}:RUN' --device cpu --out '{tmp_path}/out' --set {sets} model.fails="


def line_of(own, place):
    marked = f"# place: {place}"
    return next(n for n, text in enumerate(own.read_text().splitlines(), 1) if marked in text)


@pytest.mark.parametrize(
    ("fails", "place", "kind", "reason"),
    [
        ("index", "index", "IndexError", "list index out of range"),
        ("runtime", "runtime", "RuntimeError", "two lines"),
        ("value", "value", "ValueError", "not in the mood"),
        ("library", "library", "RuntimeError", "mat1 and mat2 shapes"),
        ("shape", "build", "ValueError", "batch_size"),
    ],
)
def test_a_failure_in_training(own, line, tmp_path, capsys, fails, place, kind, reason):
    code, _, err = call(capsys, line + fails)
    (run_dir,) = (tmp_path / "out" / "runs").iterdir()
    assert code == 3
    assert err.startswith(
        f"foretune: Config fails at {own.name}, line {line_of(own, place)}: {kind}"
    )
    assert reason in err
    assert err.endswith(f"(the same command goes on; traceback: {run_dir / 'error.txt'})\n")
    assert err.count("\n") == 1
    assert "Traceback (most recent call last)" in (run_dir / "error.txt").read_text()
    end = json.loads((run_dir / "outcome.json").read_text())
    assert (end["outcome"], end["step"]) == ("failed", 5)
    assert end["reason"] in err


@pytest.mark.parametrize(
    ("fails", "place", "sentence"),
    [
        ("build", "raised", "ValueError: no such width"),
        ("int", "build", "TypeError: build() must return a torch.nn.Module, got int"),
    ],
)
def test_a_model_that_cannot_be_built(own, line, tmp_path, capsys, fails, place, sentence):
    code, _, err = call(capsys, line + fails)
    assert code == 3
    (error,) = (tmp_path / "out").rglob("*.*")
    assert err == (
        f"foretune: Config fails at {own.name}, line {line_of(own, place)}: {sentence} "
        f"(the same command goes on; traceback: {error})\n"
    )
    assert error.name == "error.txt"


def test_the_same_command_goes_on_once_the_model_is_mended(own, line, tmp_path, capsys):
    assert call(capsys, line + "runtime")[0] == 3
    (run_dir,) = (tmp_path / "out" / "runs").iterdir()
    assert json.loads((run_dir / "outcome.json").read_text())["step"] == 5
    own.write_text(MODEL.replace('self.fails == "runtime"', "False"))
    sys.modules.pop(own.stem)
    code, out, _ = call(capsys, line + "runtime")
    assert code == 0
    assert "step       4 " not in out  # It goes on from the checkpoint there.
    assert "finished: all 8 steps done" in out
    assert not (run_dir / "error.txt").exists()


def test_a_sweep_of_a_model_that_cannot_be_built_begins_with_that(own, line, tmp_path, capsys):
    words = shlex.split(line + "int")
    sets = words[words.index("--set") + 1 :]
    with pytest.raises(SystemExit) as end:
        main(["sweep", "lr", "--preset", words[1], "--out", str(tmp_path / "s"),
              "--drop", "model.size", "model.qk_norm", "--set", *sets])  # fmt: skip
    err = capsys.readouterr().err
    assert end.value.code == 3
    assert err.startswith(f"foretune: Config fails at {own.name}, line {line_of(own, 'build')}: ")
    assert not (tmp_path / "s").exists()
