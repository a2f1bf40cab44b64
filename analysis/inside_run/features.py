"""What a forecast inside a run looks at: numbers without a scale of their own, from a prefix.

Each is a level, a change since the first reading, or a slope over log time, so that sizes, texts
and lengths of a run can be held against each other. Causal: a feature at step t is a function of
the rows up to t.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.stats.series import FEW, LARGEST, SMOOTHING, number

LOGIT: Final = "max_attention_logit"
WATCHED: Final = ("loss", "grad_norm", LOGIT, "attention_entropy", "log_z_mean", "logits_rms")
"""Columns that have one name."""
FAMILIES: Final = ("output_norm_rms_layer", "update_rms_", "param_rms_")
"""Columns that come one a layer or parameter kind, by how they begin."""
LARGEST_LOG: Final = 8.0
"""A projected log10 logit is cut here: slopes of two readings can say anything."""

FEATURES: Final = (
    "logit",
    "logit_rise",
    "logit_slope",
    "logit_projected",
    "entropy",
    "output",
    "log_z",
    "logits",
    "update",
    "update_output",
    "grad",
    "loss",
    "loss_rise",
    "warm",
    "rate",
    "rate_size",
)
"""Names of `read_features`, in the order of a design matrix."""


class Trace:
    """The readings of one run so far, by column: what both a file and a live run can give."""

    __slots__ = ("loss_least", "loss_now", "series")

    def __init__(self) -> None:
        self.series: dict[str, tuple[list[int], list[float]]] = {}
        self.loss_now = math.nan
        """Mean of the last `SMOOTHING` losses."""
        self.loss_least = math.inf
        """The least that it has been; kept up row by row, so that long runs cost no more."""

    @classmethod
    def of(cls, history: pd.DataFrame) -> "Trace":
        """Returns the trace of a telemetry frame with a column `step`; rows in order of steps."""
        trace = cls()
        if "step" not in history or history.empty:
            return trace
        ordered = history.sort_values("step", kind="stable")
        steps = ordered["step"].to_numpy(int)
        for name in watched(ordered.columns):
            values = pd.to_numeric(ordered[name], errors="coerce").to_numpy(float)
            kept = np.isfinite(values) & (np.abs(values) < LARGEST) & (steps >= 0)
            if kept.any():
                trace.series[name] = (steps[kept].tolist(), values[kept].tolist())
        loss = trace.values("loss")
        for end in range(1, len(loss) + 1):
            trace._smooth(loss[max(end - SMOOTHING, 0) : end])
        return trace

    def append(self, step: int, row: Mapping[str, float]) -> None:
        """Takes in one row of a live run."""
        for name in watched(row):
            value = row[name]
            if math.isfinite(value) and abs(value) < LARGEST:
                steps, values = self.series.setdefault(name, ([], []))
                steps.append(step)
                values.append(value)
                if name == "loss":
                    self._smooth(values[-SMOOTHING:])

    def _smooth(self, newest: list[float]) -> None:
        self.loss_now = math.fsum(newest) / len(newest)
        self.loss_least = min(self.loss_least, self.loss_now)

    def values(self, name: str) -> list[float]:
        """The finite readings of a column, oldest first; empty where it was never read."""
        return self.series.get(name, ([], []))[1]

    def steps(self, name: str) -> list[int]:
        """The steps of `values`."""
        return self.series.get(name, ([], []))[0]

    @property
    def newest_step(self) -> int:
        """The newest step that any column was read at, -1 where none was."""
        return max((steps[-1] for steps, _ in self.series.values() if steps), default=-1)


def watched(names: Iterable[str]) -> list[str]:
    """Returns those of the names that a trace keeps."""
    return [name for name in names if name in WATCHED or str(name).startswith(FAMILIES)]


def read_features(trace: Trace, context: Mapping[str, Any]) -> dict[str, float]:
    """Returns every feature of `FEATURES`; NaN where its columns are missing.

    context has `total_steps`, and where known `lr`, `n_params`, `reference_loss` (nats). Logs are
    to the base of 10.
    """
    reference = number(context, "reference_loss")
    reference = reference if reference > 0 else math.nan
    logit = _logs(trace.values(LOGIT))
    slope = _slope(trace.steps(LOGIT), logit)
    level, first = _newest(logit), logit[0] if logit else math.nan
    rate, size = _log(number(context, "lr")), _log(number(context, "n_params"))
    update = _update(trace)
    return {
        "logit": level,
        "logit_rise": level - first,
        "logit_slope": slope,
        "logit_projected": _projected(level, slope, trace.newest_step, context),
        "entropy": _share(trace.values("attention_entropy")),
        "output": _output(trace),
        "log_z": _change(trace.values("log_z_mean")),
        "logits": _newest(_logs(trace.values("logits_rms")[-FEW:])),
        "update": update,
        "update_output": update + 0.5 * size,
        "grad": _growth(trace.values("grad_norm")),
        "loss": trace.loss_now / reference,
        "loss_rise": (trace.loss_now - trace.loss_least) / reference,
        "warm": _warm(trace.newest_step, context),
        "rate": rate,
        "rate_size": rate + 0.5 * size,
    }


def _warm(step: int, context: Mapping[str, Any]) -> float:
    """log10 of the share of its peak that linear warm-up has reached; 0 without one or after it."""
    warmup = number(context, "schedule.warmup_steps")
    if step < 0:
        return math.nan
    return math.log10(min(1.0, (step + 1) / warmup)) if warmup > 0 else 0.0


def _projected(level: float, slope: float, step: int, context: Mapping[str, Any]) -> float:
    """The log logit halfway through the run, where the learning rate is still half its peak."""
    steps = number(context, "total_steps")
    ahead = max(0.5 * steps / max(step, 1), 1.0) if steps > 0 else math.nan
    return min(level + max(slope, 0.0) * math.log10(ahead), LARGEST_LOG)


def _slope(steps: list[int], logs: list[float]) -> float:
    """Slope over log10 step of the newer half of the readings, at least three of them."""
    count = max(3, len(logs) // 2)
    if len(logs) < 3:
        return 0.0 if logs else math.nan
    x, y = np.log10(np.array(steps[-count:]) + 1.0), np.array(logs[-count:])
    x = x - x.mean()
    return float((x @ y) / (x @ x)) if x.any() else 0.0


def _update(trace: Trace) -> float:
    """Mean over parameter kinds of log10 (RMS of the newest update / RMS of the parameters)."""
    logs = []
    for name in trace.series:
        kind = name.removeprefix("update_rms_")
        sizes = trace.values(f"param_rms_{kind}") if kind != name else []
        if sizes and "norm" not in kind and sizes[-1] > 0 and trace.values(name)[-1:] > [0.0]:
            logs.append(math.log10(trace.values(name)[-1] / sizes[-1]))
    return sum(logs) / len(logs) if logs else math.nan


def _output(trace: Trace) -> float:
    """log10 of the last block's output norm over its first reading."""
    layers = [name for name in trace.series if name.startswith("output_norm_rms_layer")]
    if not layers:
        return math.nan
    last = max(layers, key=lambda name: int(name.removeprefix("output_norm_rms_layer")))
    return _growth(trace.values(last))


def _log(value: float) -> float:
    return math.log10(value) if value > 0 else math.nan


def _logs(values: list[float]) -> list[float]:
    return [math.log10(max(value, 1e-12)) for value in values]


def _newest(values: list[float]) -> float:
    tail = values[-FEW:]
    return sum(tail) / len(tail) if tail else math.nan


def _change(values: list[float]) -> float:
    return _newest(values) - values[0] if values else math.nan


def _growth(values: list[float]) -> float:
    """log10 of the level now over the first reading."""
    return _newest(_logs(values[-FEW:])) - _logs(values[:1])[0] if values else math.nan


def _share(values: list[float]) -> float:
    return _newest(values) / values[0] if values and values[0] > 0 else math.nan
