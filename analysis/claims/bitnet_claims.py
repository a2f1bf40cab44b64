"""What source B says of 1.58-bit weights, held against a sweep over quantizers.

Source B: Nielsen and Schneider-Kamp, "BitNet b1.58 Reloaded" (arXiv 2407.09527), by its abstract:
language models match 16 bits when the hidden size is doubled, vision models match or beat them at
the same size, and both are robust to learning rate and weight decay. Its tables aren't public, so
nothing here is compared with its numbers.
"""

from typing import Final

import numpy as np
import pandas as pd
from scipy import special

from foretune.analysis.claims.claim import Claim
from foretune.analysis.claims.format_cells import (
    CONTROL,
    LEVEL,
    PLAIN,
    Comparison,
    compare,
    compare_at_equal_bytes,
    quantizer_cells,
    quantizer_names,
)
from foretune.analysis.measures.sensitivity import lr_sensitivity, sensitivity_cells
from foretune.analysis.records.families import LR
from foretune.analysis.records.schema import UNFINISHED
from foretune.analysis.stats.verdict import Verdict

MATCH: Final = {"loss": 0.02, "error": 0.01}
"""A difference up to this, in nats or as a share of images, is a match."""
UNIT: Final = {"loss": "nats", "error": "of all images"}
DECAY: Final = "optimizer.weight_decay"


def match_claim(name: str, found: Comparison, metric: str) -> Claim:
    """Whether the left side of a comparison is as good as the right one or better."""
    bound = MATCH[metric]
    verdict = Verdict.of(found.high <= bound, found.low > bound)
    numbers = {"difference": found.difference, "low": found.low, "high": found.high}
    return Claim(name, found.sentence, verdict, numbers)


def width_claims(trials: pd.DataFrame, *, metric: str = "loss") -> list[Claim]:
    """Equal width, doubled width, equal bytes, and how much of the gap is the norms'.

    Equal parameters are equal width, up to gains: the extra norms have no parameters.
    """
    cells = quantizer_cells(trials, metric=metric)
    sizes = sorted(cells["size"].unique())
    unit, claims = UNIT[metric], []
    for quantizer in fewer_bits(cells):
        for size in sizes:
            left = (quantizer, size)
            at_equal = compare(cells, left, (PLAIN, size), unit=unit)
            claims.append(match_claim("equal width and parameters", at_equal, metric))
            if 2 * size in sizes:
                doubled = compare(cells, (quantizer, 2 * size), (PLAIN, size), unit=unit)
                claims.append(match_claim("doubled width", doubled, metric))
            equal_bytes = compare_at_equal_bytes(cells, left, PLAIN, unit=unit)
            claims.append(match_claim("equal bytes", equal_bytes, metric))
            if quantizer.endswith("+ norms"):
                control = compare(cells, left, (CONTROL, size), unit=unit)
                claims.append(match_claim("equal width, against the control", control, metric))
    for size in sizes:
        norms = compare(cells, (CONTROL, size), (PLAIN, size), unit=unit)
        claims.append(match_claim("the norms alone", norms, metric))
    return [claim for claim in claims if np.isfinite(claim.numbers["difference"])]


def mean_or_median(trials: pd.DataFrame, *, metric: str = "loss") -> list[Claim]:
    """Whether the median is as good a scale as the mean, size by size."""
    cells = quantizer_cells(trials, metric=metric)
    names = [(f"ternary median{s}", f"ternary mean{s}") for s in (" + norms", "")]
    both = set(cells["quantizer"])
    return [
        match_claim(
            "median instead of mean",
            compare(cells, (median, size), (mean, size), unit=UNIT[metric]),
            metric,
        )
        for median, mean in names
        if {median, mean} <= both
        for size in sorted(cells["size"].unique())
    ]


def sensitivity_by_quantizer(trials: pd.DataFrame) -> pd.DataFrame:
    """LR sensitivity of every quantizer, size and qk-layernorm setting, with its interval."""
    named = trials.assign(quantizer=quantizer_names(trials))
    by = ["quantizer", "size", *(["model.qk_norm"] if "model.qk_norm" in named else [])]
    rows = []
    for key, group in named.groupby(by, sort=True):
        found = lr_sensitivity(sensitivity_cells(group))
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                "sensitivity": found.value,
                "low": found.low,
                "high": found.high,
                "best_lr": found.best_lr,
                "best_loss": found.best_loss,
                "n_seeds": found.n_seeds,
            }
        )
    return pd.DataFrame(rows)


def lr_claims(trials: pd.DataFrame) -> list[Claim]:
    """Whether ternary weights are less sensitive to the learning rate than full precision."""
    table = sensitivity_by_quantizer(trials)
    by = [name for name in ("size", "model.qk_norm") if name in table]
    claims = []
    for key, group in table.groupby(by, sort=True):
        rows = group.dropna(subset=["sensitivity"]).set_index("quantizer")
        where = ", ".join(f"{n.rpartition('.')[2]} {v:g}" for n, v in zip(by, key, strict=True))
        others = fewer_bits(rows.reset_index()) if PLAIN in rows.index else []
        for quantizer in others:
            a, b = rows.loc[quantizer], rows.loc[PLAIN]
            drop = float(b["sensitivity"] - a["sensitivity"])
            margin = float(np.hypot(a["high"] - a["low"], b["high"] - b["low"]) / 2)
            verdict = Verdict.of(drop > margin, drop < -margin)
            text = (
                f"{quantizer} against full precision ({where}): LR sensitivity "
                f"{a['sensitivity']:.3f} against {b['sensitivity']:.3f} nats "
                f"(difference {-drop:+.3f}, 90 % margin {margin:.3f})."
            )
            name = "less sensitive to the learning rate"
            claims.append(Claim(name, text, verdict, {"drop": drop}))
    return claims


def decay_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Loss of every quantizer at every decay, at the learning rate that is best there, by seed."""
    parts = []
    for decay, group in trials.groupby(DECAY):
        parts.append(quantizer_cells(group).assign(decay=decay))
    return pd.concat(parts, ignore_index=True)


def decay_claims(trials: pd.DataFrame) -> list[Claim]:
    """Whether decay matters less to ternary weights: the spread of the mean loss over decays.

    Also each quantizer's best decay. Decays that ruin a run (1e-2 a step in short runs) count. The
    interval of the difference is Student's t over seeds, so that it takes two.
    """
    cells = decay_table(trials)
    spread: dict[str, pd.Series] = {}
    claims = []
    for quantizer, group in cells.groupby("quantizer"):
        by_seed = group.pivot_table(index="seed", columns="decay", values="value")
        spread[str(quantizer)] = by_seed.sub(by_seed.min(axis=1), axis=0).mean(axis=1)
        means = by_seed.mean()
        none = f"none costs {means[0.0] - means.min():+.3f} nats, and " if 0.0 in means else ""
        text = (
            f"{quantizer}: best decay {means.idxmin():g} (loss {means.min():.3f}); {none}the mean "
            f"over the decays {', '.join(f'{d:g}' for d in means.index)} costs "
            f"{spread[str(quantizer)].mean():.3f}."
        )
        best = {"decay": float(means.idxmin())}
        claims.append(Claim("best decay", text, Verdict.CANNOT_TELL, best))
    for quantizer in fewer_bits(cells) if PLAIN in spread else []:
        difference = (spread[quantizer] - spread[PLAIN]).dropna()
        if len(difference) < 2:
            continue
        quantile = float(special.stdtrit(len(difference) - 1, (1 + LEVEL) / 2))
        half = quantile * float(difference.std(ddof=1)) / len(difference) ** 0.5
        low, high = difference.mean() - half, difference.mean() + half
        verdict = Verdict.of(high < 0, low > 0)
        text = (
            f"{quantizer} against full precision: decay sensitivity differs by "
            f"{difference.mean():+.3f} nats (90 % interval {low:+.3f} to {high:+.3f})."
        )
        claims.append(
            Claim("less sensitive to decay", text, verdict, {"difference": difference.mean()})
        )
    return claims


def needed_width(trials: pd.DataFrame) -> pd.DataFrame:
    """How much wider a ternary model must be to reach full precision at each width.

    Columns: quantizer, size (of full precision), factor, low, high (over seeds; log-linear between
    widths), n_seeds. Where the widest ternary model doesn't reach it, that seed has no factor.
    """
    cells = quantizer_cells(trials)
    rows = []
    for quantizer in fewer_bits(cells):
        for size in sorted(cells["size"].unique()):
            factors = [
                f
                for s in sorted(cells["seed"].unique())
                if np.isfinite(f := _factor(cells[cells["seed"] == s], quantizer, size))
            ]
            if factors:
                rows.append(
                    {
                        "quantizer": quantizer,
                        "size": size,
                        "factor": float(np.mean(factors)),
                        "low": min(factors),
                        "high": max(factors),
                        "n_seeds": len(factors),
                    }
                )
    return pd.DataFrame(rows)


def _factor(cells: pd.DataFrame, quantizer: str, size: float) -> float:
    own = cells[cells["quantizer"] == quantizer].sort_values("size")
    target = cells[(cells["quantizer"] == PLAIN) & (cells["size"] == size)]["value"]
    if target.empty or len(own) < 2:
        return np.nan
    # Losses fall with width; a bump between seeds must not give two crossings.
    losses = np.minimum.accumulate(own["value"].to_numpy(float))
    goal = float(target.iloc[0])
    if not losses[-1] <= goal <= losses[0]:
        return np.nan
    order = np.argsort(losses)
    reached = np.interp(goal, losses[order], np.log(own["size"].to_numpy(float))[order])
    return float(np.exp(reached) / size)


def needed_width_claims(trials: pd.DataFrame) -> list[Claim]:
    """Whether twice the width is enough, at each width of full precision that has an answer.

    One seed cannot tell.
    """
    table = needed_width(trials)
    claims = []
    for row in table.itertuples(index=False):
        verdict = Verdict.of(row.high <= 2, row.low > 2)
        spread = f"{row.low:.2f} to {row.high:.2f} over {row.n_seeds} seeds"
        if row.n_seeds < 2:
            verdict, spread = Verdict.CANNOT_TELL, "one seed"
        text = (
            f"{row.quantizer} reaches full precision of width {row.size:g} at {row.factor:.2f} "
            f"times the width ({spread})."
        )
        claims.append(Claim("twice the width is enough", text, verdict, {"factor": row.factor}))
    return claims


def ended(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that count, with their quantizer's name as a column."""
    kept = trials[~trials["outcome"].isin([UNFINISHED, "failed"])]
    return kept.assign(quantizer=quantizer_names(kept), lr=kept[LR])


def fewer_bits(cells: pd.DataFrame) -> list[str]:
    """The number formats of a table of cells that aren't full precision, in order."""
    return sorted(str(q) for q in set(cells["quantizer"]) - {PLAIN, CONTROL})
