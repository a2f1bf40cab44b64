"""What a dry run says of cost: sums, sizes, disk against real files, data that isn't there."""

from dataclasses import dataclass

import pytest
import torch
from short_runs import Bigram, small
from torch import nn

from foretune.models.nets.activation_memory import activation_bytes
from foretune.tuner.config.override import override
from foretune.tuner.config.presets import lm_paper, lm_tiny, vit_tiny
from foretune.tuner.planning.dry_run import print_plan
from foretune.tuner.planning.estimates import by_size, cost_lines, cost_of, in_bytes, in_hours
from foretune.tuner.planning.execution import Execution
from foretune.tuner.planning.plan import Plan
from foretune.tuner.records.files import MetricsFile
from foretune.tuner.records.run_json import cost, describe
from foretune.tuner.training.train import train

torch.set_num_threads(1)


def at(run, size, **changes):
    return override(run, {"model.width": size, **changes})


def test_an_estimate_adds_up_over_the_trials_of_a_size():
    runs = [at(lm_tiny(50), size, seed=seed) for size in (16, 32) for seed in range(3)]
    first, second = by_size(runs)
    assert (first.size, first.trials, second.size) == ("16", 3, "32")
    assert first.flops == 3 * cost(describe(runs[0]))
    assert first.samples == 3 * 50 * 8 * 64
    assert first.n_params_total == describe(runs[0]).n_params_total
    # Memory is that of one trial: four bytes each for weight, gradient and two moments.
    assert first.state_bytes == 16 * first.n_params_total
    assert first.activation_bytes == activation_bytes(runs[0].model, (8, 64))
    assert second.cpu_seconds > first.cpu_seconds > 3 * 50 * 1e-3


def test_a_size_with_several_models_tells_of_the_largest():
    plain = at(lm_tiny(50), 16)
    (both,) = by_size([plain, override(plain, {"model.qk_norm": True})])
    assert both.n_params == cost_of(plain).n_params + 2 * 16 * 3
    assert both.activation_bytes > cost_of(plain).activation_bytes


def test_micro_batches_and_bfloat16_take_less_memory_and_cost_the_same():
    run = override(lm_tiny(50), {"batch_size": 32, "micro_batch_size": 32})
    small_parts = cost_of(override(run, {"micro_batch_size": 8}))
    half = cost_of(override(run, {"precision": "bfloat16"}))
    whole = cost_of(run)
    assert small_parts.flops == half.flops == whole.flops
    assert 4 * small_parts.activation_bytes == whole.activation_bytes
    assert half.activation_bytes < whole.activation_bytes


@pytest.mark.parametrize("changes", [{}, {"model.depth": 8}, {"telemetry_detail": True}])
def test_records_take_the_bytes_that_were_estimated(text, tmp_path, changes):
    data = {"data.name": "text", "data.path": str(text), "data.validation_sequences": 8}
    run = at(lm_tiny(30), 16, **data, **changes)
    sink = MetricsFile(tmp_path / "metrics.jsonl")
    train(run, sink, device="cpu")
    sink.close()
    written = (tmp_path / "metrics.jsonl").stat().st_size
    assert cost_of(run).row_bytes - 2500 == pytest.approx(written, rel=0.1)


def test_tokens_that_are_written_once_are_told_with_their_bytes():
    """T5's 32,101 tokens fit two bytes, source A's 1e5 steps of 256 x 512 tokens are 24.4 GiB."""
    lines = cost_lines([at(lm_paper(), 256), at(lm_paper(), 512)])
    own = [line for line in lines if line.startswith("c4: ")]
    assert len(own) == 1
    assert "1.31e+10 tokens of allenai/c4" in own[0]
    assert "24.4 GiB" in own[0]


def test_every_size_has_a_line_of_its_own_and_the_sums_follow():
    lines = cost_lines([at(lm_tiny(50), size) for size in (16, 32, 64)])
    assert [line.split()[0] for line in lines[:5]] == ["size", "16", "32", "64", "all"]
    assert len({len(line) for line in lines[:5]}) == 1
    assert lines[5].startswith("3 trials, ")
    assert lines[-1].startswith("data not opened: stdlib;")
    assert f"{cost(describe(at(lm_tiny(50), 16))):.2e}" in lines[1]


def test_ladders_are_kept_apart_and_images_are_no_tokens():
    deep = override(lm_tiny(50), {"model.ladder": "depth", "model.depth": 2})
    lines = cost_lines([at(lm_tiny(50), 16), deep])
    assert [line.split()[:2] for line in lines[1:3]] == [["depth", "2"], ["width", "16"]]
    assert " tokens " in lines[0]
    assert " images " in cost_lines([vit_tiny(50)])[0]


def test_examples_stand_for_as_many_trials_as_there_will_be():
    runs = [at(lm_tiny(50), 16, seed=seed) for seed in range(4)]
    lines, more = cost_lines(runs), cost_lines(runs, trials=40)
    assert lines[2].startswith("4 trials, ")
    assert more[2].startswith("40 trials, ")
    assert f"{40 * cost_of(runs[0]).flops:.2e} FLOP" in more[2]


@dataclass(frozen=True)
class Asking:
    """A model of one's own that can't be run without numbers."""

    def build(self) -> nn.Module:
        return AskingNet()


class AskingNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(256, 256)

    def forward(self, tokens):
        return self.table(tokens) * float(tokens.sum())


def test_a_model_of_one_s_own_has_its_memory_told_where_it_can_be(text):
    run = small(text)
    assert cost_of(override(run, {"model": Bigram()})).activation_bytes > 4 * 4 * 4 * 16 * 256
    lines = cost_lines([override(run, {"model": Asking()})])
    assert "  -  " in lines[1]


def test_a_dry_run_needs_no_data(capsys):
    paper = {
        "data.name": "tokens",
        "data.path": "absent/c4.bin",
        "data.vocab_size": 32101,
        "model.vocab_size": 32101,
        "steps": 100_000,
    }
    space = {"model.size": {"grid_search": [16, 32]}}
    assert print_plan(Plan(space, overrides=paper), Execution()) == 0
    assert "data not opened: tokens; what is missing" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"data.path must be a file or folder that exists"):
        Plan(space, overrides=paper).runs()
    search = Plan(space, overrides=paper, search="optuna", num_samples=9)
    assert print_plan(search, Execution()) == 0
    output = capsys.readouterr().out
    assert "9 trials, which Optuna chooses" in output
    assert "data not opened: tokens" in output


@pytest.mark.parametrize(
    ("count", "text"), [(1536, "1.5 KiB"), (3 * 2**30, "3.0 GiB"), (2**51, "2048.0 TiB")]
)
def test_bytes_have_a_unit(count, text):
    assert in_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.14, "3.1 s"), (600, "10 min"), (9000, "2.5 h"), (3.6e7, "10,000 h")]
)
def test_time_has_a_unit(seconds, text):
    assert in_hours(seconds) == text
