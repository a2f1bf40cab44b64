"""The number formats of a sweep held against each other, for its page."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.claims import bitnet_claims
from foretune.analysis.claims.claim import Claim
from foretune.analysis.claims.format_cells import (
    LEVEL,
    PLAIN,
    Comparison,
    compare,
    quantizer_cells,
    quantizer_names,
    quantizer_table,
)
from foretune.analysis.records.families import QUANTIZER, factors, label, select
from foretune.analysis.records.schema import UNFINISHED
from foretune.analysis.stats.verdict import Verdict

FORMAT: Final = QUANTIZER[0]
AXES: Final = {"model.qk_norm": "lr", bitnet_claims.DECAY: "decay"}
"""What formats are compared over where one other factor varies, by that factor."""
MAX_SETTINGS: Final = 4
"""Settings of the other factors that are judged; those with the most runs."""


@dataclass(frozen=True, slots=True)
class Formats:
    """How the number formats of a sweep compare."""

    metric: str
    """What is compared: loss (nats), or error (share of images) where images were classified."""
    axis: str
    """What the figure has on its horizontal axis: size, lr or decay."""
    setting: str
    """The other factors' values of the runs in table and headline; empty where none varies."""
    trials: pd.DataFrame
    """The runs that the figure shows."""
    table: pd.DataFrame
    """`quantizer_table` of the setting."""
    claims: list[Claim]
    sentence: str
    """The headline."""


def compare_formats(trials: pd.DataFrame) -> Formats | None:
    """The verdicts on a sweep's number formats; None where the format doesn't vary.

    Formats are compared at their own best learning rates, seed by seed, as `foretune reproduce`
    compares them: over learning rates where qk-layernorm varies too, over decays where weight decay
    does, else by width, apart for each setting of what else varies.
    """
    ended = trials[~trials["outcome"].isin([UNFINISHED, "failed"])]
    if FORMAT not in ended or ended[FORMAT].nunique() < 2:
        return None
    others = _others(ended)
    settings = list(_settings(ended, others))
    setting, chosen = settings[0]
    metric = _metric(ended)
    axis = AXES.get(others[0], "size") if len(others) == 1 else "size"
    cells = quantizer_cells(chosen, metric=metric)
    claims = _claims(ended, settings, axis, metric)
    return Formats(
        metric=metric,
        axis=axis,
        setting=setting,
        trials=chosen if axis == "size" else ended,
        table=quantizer_table(cells),
        claims=claims or [_cannot_tell(cells)],
        sentence=_sentence(cells, setting, metric),
    )


def _metric(trials: pd.DataFrame) -> str:
    accuracy = trials.get("final_val_accuracy")
    return "loss" if accuracy is None or accuracy.isna().all() else "error"


def _others(trials: pd.DataFrame) -> list[str]:
    """The factors beside the format's own fields; what a format's name settles is none."""
    named = quantizer_names(trials)
    return [
        name
        for name in factors(trials)
        if name not in QUANTIZER and trials.groupby(named)[name].nunique(dropna=False).gt(1).any()
    ]


def _settings(trials: pd.DataFrame, others: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Label and runs of each setting of the other factors, those with the most runs first.

    Full precision has no use for the quantization's fields, so it stands in every setting of them.
    """
    if not others:
        yield "", trials
        return
    full = trials[trials[FORMAT] == "none"]
    fewer = trials[trials[FORMAT] != "none"]
    groups = sorted(fewer.groupby(others, dropna=False), key=lambda item: -len(item[1]))
    for key, group in groups[:MAX_SETTINGS]:
        values = {n: _plain(v) for n, v in zip(others, key, strict=True)}
        shared = {n: v for n, v in values.items() if not n.startswith("quantization.")}
        yield label(values), pd.concat([group, select(full, shared)])


def _plain(value: Any) -> Any:
    return None if pd.isna(value) else np.asarray(value).item()


def _claims(
    trials: pd.DataFrame, settings: list[tuple[str, pd.DataFrame]], axis: str, metric: str
) -> list[Claim]:
    if axis == "decay":
        return bitnet_claims.decay_claims(trials)
    if axis == "lr":
        return bitnet_claims.lr_claims(trials)
    found = []
    for setting, group in settings:
        claims = bitnet_claims.width_claims(group, metric=metric)
        claims += bitnet_claims.mean_or_median(group, metric=metric)
        bound = f": at most {bitnet_claims.MATCH[metric]:g} {bitnet_claims.UNIT[metric]} worse"
        claims = [replace(claim, name=claim.name + bound) for claim in claims if _is_known(claim)]
        if metric == "loss":
            claims += bitnet_claims.needed_width_claims(group)
        where = f" ({setting})" if setting else ""
        found += [replace(claim, name=claim.name + where) for claim in claims]
    return found


def _is_known(claim: Claim) -> bool:
    return math.isfinite(claim.numbers["difference"])


def _cannot_tell(cells: pd.DataFrame) -> Claim:
    why = "no size was run both in full precision and in another format"
    if cells.groupby("quantizer")["seed"].nunique().max() < 2:
        why = (
            "they are compared seed by seed, which takes two seeds, better three; only one was run"
        )
    return Claim(
        "the formats", f"Cannot tell which format is better: {why}.", Verdict.CANNOT_TELL, {}
    )


def _sentence(cells: pd.DataFrame, setting: str, metric: str) -> str:
    """The best of the fewer-bit formats against full precision, at the largest size of both."""
    means = cells.groupby(["size", "quantizer"])["value"].mean().unstack()
    fewer = bitnet_claims.fewer_bits(cells)
    known = means.dropna(subset=[PLAIN]) if PLAIN in means else means.iloc[:0]
    known = known.dropna(subset=fewer, how="all")
    if known.empty:
        return "No size was run both in full precision and in a format of fewer bits."
    size, row = float(known.index[-1]), known.iloc[-1]  # pyright: ignore[reportArgumentType]
    best = str(row[fewer].idxmin())
    found = compare(cells, (best, size), (PLAIN, size))
    difference = float(row[best] - row[PLAIN])
    side = "above" if difference > 0 else "below"
    noun, unit = {"loss": ("final loss", " nats"), "error": ("error", "")}[metric]
    where = f"size {size:g}{f' and {setting}' if setting else ''}"
    return (
        f"At {where}, the {noun} of {best} is {abs(difference):.3f}{unit} {side} that of full "
        f"precision, each at its own best learning rate: {_certainty(found)}."
    )


def _certainty(found: Comparison) -> str:
    if found.n_seeds < 2:
        return "fewer than two seeds ran both, so this may be chance"
    text = f"{LEVEL:.0%} interval {found.low:+.3f} to {found.high:+.3f} over {found.n_seeds} seeds"
    sure = found.better is not Verdict.CANNOT_TELL
    return text if sure else f"{text}, so this may be chance"
