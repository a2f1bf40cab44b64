"""The runs behind a figure: sweeps joined, each run with the variant and the rung it belongs to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.figures.canvas import short_number
from foretune.analysis.measures.signal import capped_loss
from foretune.analysis.records.families import LR
from foretune.analysis.records.load import Records
from foretune.analysis.records.schema import UNFINISHED

Variants = Mapping[str, Mapping[str, Any]]
"""{label: {dotted field: value}}: the settings that a figure compares."""
ALL_RUNS: Final = "all runs"
"""The variant of a figure that compares none."""
SAME_RUNG: Final = 1.25
"""Factor in N up to which models of one size stand on one rung: norms add gains of 1 to 3 %."""


@dataclass(frozen=True, slots=True)
class Runs:
    """The ended runs of a figure.

    `trials` has the columns of `analysis.records.schema` and `variant`, `part` (the sweep), `rung`
    (what a size is called), `rung_n` (its parameters), `lr`, `loss` (final, at most the loss at
    init; NaN where the run was stopped). A run stands once for each variant that it belongs to.
    """

    trials: pd.DataFrame
    telemetry: pd.DataFrame
    variants: tuple[str, ...]
    """Labels in the order given, those without a run as well."""

    @property
    def rungs(self) -> dict[str, float]:
        """Every rung and its parameters, the smallest first."""
        known = self.trials.groupby("rung")["rung_n"].first().sort_values(kind="stable")
        return {str(rung): float(n) for rung, n in known.items()}

    def of(self, variant: str, rung: str | None = None) -> pd.DataFrame:
        """The trials of a variant, at one rung or all."""
        chosen = self.trials["variant"] == variant
        return self.trials[chosen if rung is None else chosen & (self.trials["rung"] == rung)]

    def cells(self) -> Iterator[tuple[str, str, pd.DataFrame]]:
        """Variant, rung and trials, of those that have any."""
        for variant in self.variants:
            for rung in self.rungs:
                if len(trials := self.of(variant, rung)):
                    yield variant, rung, trials

    @property
    def absent(self) -> str:
        """Which variants have no run, a clause; empty where all have."""
        lacking = [label for label in self.variants if label not in set(self.trials["variant"])]
        return f"no run of {', '.join(lacking)} has ended" if lacking else ""


def gather(
    records: Mapping[str, Records],
    variants: Variants | None = None,
    *,
    where: Mapping[str, Any] | None = None,
) -> Runs:
    """The ended runs of several sweeps, sorted into variants; `where` keeps those with its values.

    A run belongs to the variant whose values it has; where it has those of several, to the one that
    names most fields, so that {} is whatever no other variant claims.
    """
    if not records:
        raise ValueError("records must hold one sweep or more, got none; give the sweeps to read")
    trials = pd.concat([r.trials.assign(part=name) for name, r in records.items()])
    trials = trials.drop_duplicates("run_id").reset_index(drop=True)
    trials = trials[~trials["outcome"].isin([UNFINISHED, "failed"])]
    trials = trials[_matches(trials, where or {})]
    named: Variants = variants if variants is not None else {ALL_RUNS: {}}
    trials = _by_variant(trials, named)
    lr = trials[LR].to_numpy(float) if LR in trials else np.full(len(trials), np.nan)
    trials = trials.assign(lr=lr, loss=[capped_loss(row) for _, row in trials.iterrows()])
    telemetry = pd.concat([r.telemetry for r in records.values()], ignore_index=True)
    telemetry = telemetry[telemetry["run_id"].isin(trials["run_id"])]
    telemetry = telemetry.drop_duplicates(["run_id", "step"]).astype({"run_id": str})
    return Runs(_with_rungs(trials), telemetry.sort_values(["run_id", "step"]), tuple(named))


def split(records: Records, variants: Variants) -> dict[str, Records]:
    """The records of each variant by its name: those runs that have its values."""
    found = {}
    for name, fields in variants.items():
        trials = records.trials[_matches(records.trials, fields)]
        own = records.telemetry["run_id"].isin(trials["run_id"])
        found[name] = replace(records, trials=trials, telemetry=records.telemetry[own])
    return found


def _by_variant(trials: pd.DataFrame, variants: Variants) -> pd.DataFrame:
    has = {label: _matches(trials, fields).to_numpy() for label, fields in variants.items()}
    names = {label: len(fields) for label, fields in variants.items()}
    most = np.max([np.where(has[v], names[v], -1) for v in variants], axis=0)
    parts = [trials[has[v] & (most == names[v])].assign(variant=v) for v in variants]
    return pd.concat(parts, ignore_index=True)


def _matches(trials: pd.DataFrame, fields: Mapping[str, Any]) -> pd.Series:
    """Whether each trial has these values; a field that was never recorded has none."""
    chosen = pd.Series(True, index=trials.index)
    for name, value in fields.items():
        if name not in trials:
            return pd.Series(False, index=trials.index)
        column = trials[name]
        chosen &= column.isna() if value is None else (column == value).fillna(False).astype(bool)
    return chosen


def _with_rungs(trials: pd.DataFrame) -> pd.DataFrame:
    """Sizes by name; a size with models of quite different N (two depths, say) is several rungs."""
    labels, smallest = {}, {}
    for size, group in trials.groupby("size", dropna=False):
        n = np.sort(group["n_params"].dropna().unique())
        starts = [i for i in range(len(n)) if i == 0 or n[i] > SAME_RUNG * n[i - 1]]
        name = f"{size:g}" if np.isfinite(size) else "unknown"
        for start, end in zip(starts, [*starts[1:], len(n)], strict=True):
            alone = len(starts) == 1
            label = name if alone else f"{name}, N {short_number(float(f'{n[start]:.2g}'))}"
            labels |= {(size, value): label for value in n[start:end]}
            smallest[label] = float(n[start])
    keys = zip(trials["size"], trials["n_params"], strict=True)
    rungs = [labels.get(key, "unknown") for key in keys]
    return trials.assign(rung=rungs, rung_n=[smallest.get(rung, np.nan) for rung in rungs])


def recorded(runs: Runs, *columns: str) -> str | None:
    """The first of several telemetry columns that any of the runs has, None where none has."""
    telemetry = runs.telemetry
    return next((c for c in columns if c in telemetry and telemetry[c].notna().any()), None)
