"""A sweep of one's own model goes on from any folder, once its file is named."""

import sys

import pytest
from processes import finish, outcomes, start

from foretune.tuner.planning.plan import Plan
from foretune.tuner.records.journal import describe_all, write_down
from foretune.tuner.records.sweep_json import SweepRecord

MODULE = """
from dataclasses import dataclass
from torch import nn
from foretune import Run

@dataclass(frozen=True)
class Bigram:
    width: int = 8

    def build(self):
        return nn.Sequential(nn.Embedding(256, self.width), nn.Linear(self.width, 256))

RUN = Run(model=Bigram())
"""


@pytest.fixture
def begun(tmp_path, text):
    """A sweep that was written down and then killed, and the file of its preset."""
    file = tmp_path / "code" / "own_preset_for_test.py"
    file.parent.mkdir()
    file.write_text(MODULE)
    steps = {"steps": 8, "eval_every": 4, "telemetry_every": 4, "schedule.warmup_steps": 2}
    data = {"data.name": "text", "data.path": str(text), "data.validation_sequences": 4}
    plan = Plan({"optimizer.lr": 1e-2}, preset=f"{file}:RUN", overrides={**steps, **data})
    record = SweepRecord(
        command="", plan=plan.describe(), execution={}, versions={}, machine={}, trials=1
    )
    write_down(tmp_path / "s", describe_all(plan.runs()), record)
    yield tmp_path / "s", file
    sys.modules.pop("own_preset_for_test", None)


@pytest.mark.slow
def test_it_is_named_or_it_is_not_run(begun, tmp_path):
    directory, file = begun
    (tmp_path / "elsewhere").mkdir()
    refused = start("resume", str(directory), cwd=tmp_path / "elsewhere")
    said, _ = refused.communicate()
    assert refused.returncode == 2
    assert said.count("\n") == 1
    assert "model.kind must be importable here, got 'own_preset_for_test:Bigram'" in said
    assert "--preset FILE.py" in said
    words = ("resume", str(directory), "--preset", str(file))
    said = finish(start(*words, cwd=tmp_path / "elsewhere"))
    assert "1 trials: 1 finished" in said
    assert [end["outcome"] for end in outcomes(directory).values()] == ["finished"]
