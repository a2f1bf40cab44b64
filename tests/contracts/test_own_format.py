"""A number format of a user's own is one class and one line, and a name for it another line."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from short_runs import follow, small
from torch import Tensor

from foretune.models.quantization.config import Quantization
from foretune.models.quantization.formats import FORMATS, Format
from foretune.models.quantization.layers import quantized_layers
from foretune.models.quantization.scales import absmax, measure, rescale
from foretune.tuner.cli.list import list_names
from foretune.tuner.config.quantizers import QUANTIZERS, Quantizer
from foretune.tuner.config.resolve import resolve
from foretune.tuner.config.run import Run
from foretune.tuner.planning.run_names import name_runs
from foretune.tuner.records.run_json import describe, run_id
from foretune.tuner.sweeps.trials import competitors


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform2(Format):
    """Levels -3, -1, 1, 3: two bits, as far apart from one another."""

    granularity: str = "tensor"
    group_size: int = 64

    @property
    def highest(self) -> float:
        return 3.0

    def scale_of(self, weight: Tensor) -> Tensor:
        return measure(weight, absmax, self.granularity, self.group_size) / self.highest

    def levels(self, weight: Tensor, scale: Tensor) -> Tensor:
        halves = rescale(weight, scale).sub_(1).div_(2).round_()
        return halves.mul_(2).add_(1).clamp_(-self.highest, self.highest)

    def level_bytes(self, count: int) -> int:
        return -(-count // 4)


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "uniform2", Uniform2())
    row = Quantizer("2 bits, evenly apart", Quantization(format="uniform2", granularity="row"))
    monkeypatch.setitem(QUANTIZERS, "uniform2-rows", row)


@pytest.fixture
def start(tmp_path: Path) -> Run:
    text = tmp_path / "a.txt"
    text.write_bytes(Path(__file__).read_bytes() * 8)
    return small(text, {"steps": 2, "telemetry_every": 1, "schedule.warmup_steps": 1})


def test_it_trains_with_its_telemetry(start):
    run = resolve(start, overrides={"quantizer": "uniform2-rows"})
    outcome, rows, training = follow(run)
    assert (outcome.outcome, training.step) == ("finished", 2)
    columns = set().union(*(row for _, row in rows))
    assert {"zero_fraction", "weight_scale", "activation_clipped", "trit_flip_rate"} <= columns
    layers = quantized_layers(training.model).values()
    assert len(layers) == 8
    for layer in layers:
        grid = layer.grid.compute(layer.weight)
        assert set(grid.levels.unique().tolist()) <= {-3, -1, 1, 3}
        assert grid.scale.shape == (len(layer.weight), 1)


def test_its_stored_bytes_are_counted_as_it_says(start):
    run, plain = resolve(start, overrides={"quantizer": "uniform2-rows"}), describe(start)
    width, depth = run.model.width, run.model.depth
    weights = depth * 12 * width**2  # qkv, output, and an MLP four times as wide.
    rows = depth * 9 * width
    saved = plain.weight_bytes - describe(run).weight_bytes
    assert saved == 4 * weights - weights // 4 - 4 * rows


def test_it_has_a_name_everywhere(start, capsys):
    list_names("quantizers")
    assert "uniform2-rows        2 bits, evenly apart\n" in capsys.readouterr().out
    runs = [resolve(start, overrides={"quantizer": name}) for name in ("int8", "uniform2-rows")]
    labels = name_runs(runs)
    assert [labels[run_id(run)] for run in runs] == ["quantizer=int8", "quantizer=uniform2-rows"]
    assert competitors(runs[1], 16) == "size 16, uniform2"


def test_settings_that_it_has_no_use_for_are_refused(start):
    for changes, sentence in (
        ({"quantization.scale": "median"}, "serves format=ternary, got format=uniform2"),
        ({"quantization.scale_dtype": "float32"}, "needs format=ternary or binary, got format=uni"),
    ):
        with pytest.raises(ValueError, match=sentence):
            resolve(start, overrides={"quantizer": "uniform2-rows", **changes})


def test_it_keeps_what_stands_on_its_grid():
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Uniform2()(Uniform2()(weight)), Uniform2()(weight))
