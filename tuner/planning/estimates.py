"""What runs will cost, before any of them starts: a line per size, and the sums.

Nothing is opened, built or drawn. Constants say where they were measured.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from foretune.models import size_of
from foretune.models.nets.activation_memory import activation_bytes
from foretune.models.nets.counts import BYTES_PER_PARAMETER
from foretune.tuner.config.images import ImageData
from foretune.tuner.config.run import Run
from foretune.tuner.config.tokens import Data
from foretune.tuner.data.token_cache import SMALL
from foretune.tuner.records.run_json import cost, describe

GPU_FLOPS = 0.4 * 989e12
"""Of one H100: 40 % of its 989 TFLOP/s in bfloat16, which models of width 1000 and more reach."""
CPU_NAME = "AMD EPYC, Zen 5"
CPU_CORES = 2
CPU_FLOPS = 90e9
"""Floating-point operations a second of one such core in float32; with CPU_STEP_SECONDS within a
quarter of what lm-tiny took at widths 16 to 256. Image presets took up to three times as long."""
CPU_STEP_SECONDS = 2e-3
"""What a step costs beside its operations."""

TOKEN_BYTES = (2, 4)
"""Of a token on disk, in a vocabulary up to `SMALL` and in a larger one."""
PLAIN_ROW_BYTES = 145
"""Of a row of metrics.jsonl with loss, learning rate and gradient norm alone (lm-tiny)."""
PROBED_ROW_BYTES, LAYER_BYTES = 1450, 96
"""Of a row with all probes of lm-tiny, and what each block adds to it."""
DETAIL_BYTES, DETAIL_LAYER_BYTES = 380, 1025
"""What `telemetry_detail` adds to such a row, and to each block's part."""
RUN_BYTES = 2500
"""run.json and outcome.json."""
TABLE_SHARE = 0.2
"""Of the rows' bytes: what telemetry.parquet takes."""
MLFLOW_SHARE = 7
"""Of the rows' bytes: what the same numbers take in mlflow.db (SQLite)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What some trials of one size cost together, and the largest of them in memory."""

    size: str
    trials: float
    n_params: int
    """N, without embeddings, stem and head."""
    n_params_total: int
    flops: float
    state_bytes: int
    """Weights, gradients and both moments of one trial."""
    activation_bytes: int | None
    """Peak of one trial's forward and backward pass; None for a model that can't tell."""
    samples: float
    """Tokens, or images."""
    row_bytes: float
    """Of metrics.jsonl, run.json and outcome.json."""
    cpu_seconds: float
    """Of one core."""

    def scaled(self, factor: float) -> "Cost":
        """Returns the cost of so many times as many trials."""
        names = ("trials", "flops", "samples", "row_bytes", "cpu_seconds")
        return replace(self, **{name: factor * getattr(self, name) for name in names})


def cost_of(run: Run, *, size: str = "") -> Cost:
    """Returns what one run costs."""
    record = describe(run)
    flops = cost(record)
    return Cost(
        size=size or str(record.size or "-"),
        trials=1,
        n_params=record.n_params,
        n_params_total=record.n_params_total,
        flops=flops,
        state_bytes=BYTES_PER_PARAMETER * record.n_params_total,
        activation_bytes=_activations(run.model, _batch_shape(run), run.precision),
        samples=record.tokens_per_step * run.steps,
        row_bytes=RUN_BYTES + _row_bytes(run),
        cpu_seconds=flops / CPU_FLOPS + CPU_STEP_SECONDS * run.steps,
    )


@lru_cache(maxsize=256)
def _activations(model: Any, shape: tuple[int, ...], precision: str) -> int | None:
    try:
        return activation_bytes(model, shape, precision)
    except (RuntimeError, TypeError):  # A model of one's own that the meta device can't run.
        return None


def _batch_shape(run: Run) -> tuple[int, ...]:
    if isinstance(run.data, ImageData):
        return run.micro_batch_size, run.data.channels, run.data.side, run.data.side
    return run.micro_batch_size, run.data.sequence_length


def _row_bytes(run: Run) -> int:
    probed = -(-run.steps // run.telemetry_every)
    full = PROBED_ROW_BYTES + DETAIL_BYTES * run.telemetry_detail
    layer = LAYER_BYTES + DETAIL_LAYER_BYTES * run.telemetry_detail
    full += getattr(run.model, "depth", 0) * layer
    return PLAIN_ROW_BYTES * (run.steps + 1 - probed) + full * probed


def by_size(runs: Sequence[Run]) -> list[Cost]:
    """Returns a cost for each size, in order; with several ladders, for each size of each."""
    ladders = {getattr(run.model, "ladder", "") for run in runs}
    groups: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        ladder = getattr(run.model, "ladder", "") if len(ladders) > 1 else ""
        groups.setdefault((ladder, size_of(run.model)), []).append(run)
    return [
        _sum(map(cost_of, group), f"{ladder} {size or '-'}".strip())
        for (ladder, size), group in sorted(groups.items())
    ]


def _sum(costs: Iterable[Cost], size: str) -> Cost:
    every = list(costs)
    known = [e.activation_bytes for e in every if e.activation_bytes is not None]
    sums = {
        name: sum(getattr(e, name) for e in every)
        for name in ("trials", "flops", "samples", "row_bytes", "cpu_seconds")
    }
    return Cost(
        size=size,
        n_params=max(e.n_params for e in every),
        n_params_total=max(e.n_params_total for e in every),
        state_bytes=max(e.state_bytes for e in every),
        activation_bytes=max(known, default=None),
        **sums,
    )


HEAD = ("size", "trials", "N", "all parameters", "FLOP", "weights, grads, moments", "activations")
"""Memory is that of one trial, the rest of all trials of a size."""


def cost_lines(runs: Sequence[Run], *, trials: int | None = None) -> list[str]:
    """Returns what runs cost: a table by size, then sums of time, memory and disk.

    trials is how many there will be where the runs are examples of them.
    """
    sizes = by_size(runs)
    total = _sum(sizes, "all")
    if trials is not None:
        total = total.scaled(trials / len(runs))
        sizes = [each.scaled(trials / len(runs)) for each in sizes]
    what = {"images" if isinstance(run.data, ImageData) else "tokens" for run in runs}
    rows = [(*HEAD, " or ".join(sorted(what, reverse=True)), "records")]
    rows += [_cells(each) for each in ([*sizes, total] if len(sizes) > 1 else sizes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in rows]
    return [*table, *_sums(runs, total)]


def _cells(e: Cost) -> tuple[str, ...]:
    activations = "-" if e.activation_bytes is None else in_bytes(e.activation_bytes)
    return (
        e.size,
        f"{e.trials:,.0f}",
        f"{e.n_params:,}",
        f"{e.n_params_total:,}",
        f"{e.flops:.2e}",
        in_bytes(e.state_bytes),
        activations,
        f"{e.samples:.2e}",
        in_bytes(e.row_bytes),
    )


def _sums(runs: Sequence[Run], total: Cost) -> list[str]:
    cpu = in_hours(total.cpu_seconds / CPU_CORES)
    names = ", ".join(dict.fromkeys(run.data.name for run in runs))
    gpu = (
        f", or {in_hours(total.flops / GPU_FLOPS)} on one H100 at 40 % of 989 TFLOP/s in bfloat16, "
        f"which small models don't reach"
    )
    return [
        f"{total.trials:,.0f} trials, {total.flops:.2e} FLOP in all: {cpu} on both cores of a "
        f"two-core machine ({CPU_NAME}: {CPU_FLOPS:.0e} FLOP/s a core and "
        f"{1e3 * CPU_STEP_SECONDS:g} ms a step){gpu if total.flops > 60 * GPU_FLOPS else ''}",
        f"disk: {in_bytes((1 + TABLE_SHARE) * total.row_bytes)} of records and tables, about "
        f"{in_bytes(MLFLOW_SHARE * total.row_bytes)} in MLflow; memory is that of the largest "
        f"trial of a size, trials at once add up",
        *_tokenised(runs),
        f"data not opened: {names}; what is missing there is told before the first trial starts",
    ]


def _tokenised(runs: Sequence[Run]) -> list[str]:
    """What the data sets of documents take on disk once they are tokens."""
    sets = {run.data for run in runs if isinstance(run.data, Data) and run.data.tokens}
    lines = []
    for data in sorted(sets, key=lambda data: data.tokens):
        size = in_bytes(TOKEN_BYTES[data.vocab_size > SMALL] * data.tokens)
        lines.append(
            f"{data.name}: {data.tokens:.2e} tokens of {data.dataset}, tokenised once by the first "
            f"trial into {size} of FORETUNE_CACHE"
        )
    return lines


def in_bytes(count: float) -> str:
    """Returns bytes as KiB, MiB, GiB or TiB."""
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def in_hours(seconds: float) -> str:
    """Returns seconds as seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.2g} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h"
