"""Where AdamW's epsilon begins to matter: as a share of the gradient RMS, and so at which size.

The paper sees it at one size, 4.8B parameters, whose gradients meet the usual 1e-8. Small models
have larger gradients, so larger epsilons stand in: what counts is epsilon / r, r the gradient RMS
at the usual epsilon, which is known before anybody changes it. Losses are compared at the rates up
to a size's best one, where two runs of one seed stay together; above it they part by chance.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.claims.answer import Answer
from foretune.analysis.claims.claim import Claim
from foretune.analysis.claims.intervals import LEVEL, pooled
from foretune.analysis.claims.words import cannot_tell, claim
from foretune.analysis.laws.attenuation import EPSILON, FORM, NEAR
from foretune.analysis.laws.laws import Law, fit
from foretune.analysis.measures.signal import read_signal
from foretune.analysis.records.load import Records
from foretune.analysis.stats.verdict import Verdict
from foretune.analysis.wortsman.gradients.epsilon import END, FINDINGS, GRADIENTS, epsilons_of
from foretune.analysis.wortsman.gradients.epsilon_onset_figure import onset_figure
from foretune.analysis.wortsman.gradients.gradients import surely
from foretune.analysis.wortsman.runs import Runs, Variants, gather, recorded
from foretune.analysis.wortsman.scaling import NOISE

COST: Final = 0.02
"""Loss in nats that counts as a cost: half of what another seed changes."""
PAIRED_SD: Final = 0.015
"""Standard deviation over seeds of a difference between two runs of one seed, at a rate up to the
best one (nats): what the sweeps of docs/reproductions.md have."""
ONSET_SD: Final = 0.3
"""Standard deviation over seeds of the log10 share at which the cost is reached, dex."""
NEARBY: Final = 2.0
"""Decades around 1 in which epsilon counts as near the gradient RMS."""
WEAKENED: Final = (0.3, 0.95)
"""r / (r + epsilon) between which the formula is held against updates: above nothing is to be seen,
below r varies too much from element to element for one number to stand for it."""
SAME_UPDATE: Final = 0.1
"""Decades by which an update may differ from the formula."""
SEEN: Final = (4.8e9, 0.3)
"""Parameters and learning rate at which the paper saw gradients meet epsilon."""
CELL: Final = ["rung", "lr", "seed"]


def epsilon_onset(
    records: Mapping[str, Records],
    variants: Variants,
    *,
    usual: float = 1e-8,
    where: Mapping[str, Any] | None = None,
) -> Answer:
    """What larger epsilons than the usual one cost, against their share of the gradient RMS.

    Variants differ in `optimizer.epsilon`; one has the `usual` value, others are larger. The table
    has a row per size, learning rate and epsilon. ValueError as `epsilons_of`.
    """
    labels = epsilons_of(variants, usual)
    runs = gather(records, variants, where=where)
    gradient = recorded(runs, *GRADIENTS) or GRADIENTS[0]
    pairs = _pairs(runs, gradient, usual)
    larger = {n: e for n, e in sorted(labels.items(), key=lambda item: item[1]) if e > usual}
    onset = _onset(pairs)
    law = _law(runs, gradient, usual)
    claims = [_costs(pairs, name, epsilon) for name, epsilon in larger.items()]
    claims += [_share(onset), _weakened(pairs)]
    claims.append(_at_scale(law, usual, 10 ** float(onset["y"].mean()) if len(onset) else math.nan))
    table = _table(pairs)
    return Answer(table, claims, onset_figure(table, law, usual, SEEN, COST))


def _pairs(runs: Runs, gradient: str, usual: float) -> pd.DataFrame:
    """A row per run at a larger epsilon, beside the run of its size, rate and seed at the usual."""
    trials, telemetry = runs.trials, runs.telemetry
    update = gradient.replace("grad_rms_", "update_rms_")
    columns = [*CELL, "rung_n", "n_params", "loss"]
    rows = trials[columns].assign(epsilon=trials[EPSILON].astype(float))
    for name, column in (("r", gradient), ("update", update)):
        read = read_signal(trials, telemetry, signal=column, window=END)
        value = read["value"].where(~read["censored"].astype(bool)).to_numpy(float)
        rows[name] = np.where(value > 0, value, np.nan)
    own = rows[rows["epsilon"] == usual][[*CELL, "loss", "r", "update"]]
    pairs = rows[rows["epsilon"] > usual].merge(own, on=CELL, suffixes=("", "_usual"))
    mean = own.groupby(["rung", "lr"])["loss"].mean().reset_index()
    best = {rung: part.loc[part["loss"].idxmin(), "lr"] for rung, part in mean.groupby("rung")}
    formula = pairs["r"] / (pairs["r"] + pairs["epsilon"])
    return pairs.assign(
        cost=pairs["loss"] - pairs["loss_usual"],
        share=pairs["epsilon"] / pairs["r_usual"],
        kept=pairs["update"] / pairs["update_usual"],
        formula=formula * (pairs["r_usual"] + usual) / pairs["r_usual"],
        stable=pairs["lr"] <= pairs["rung"].map(best),
    )


def _by_rung(rows: pd.DataFrame, column: str) -> list[np.ndarray]:
    """Means over a seed's rows, as arrays of seeds, a size each."""
    means = rows.groupby(["rung_n", "seed"])[column].mean().dropna()
    return [part.to_numpy(float) for _, part in means.groupby(level=0)]


def _costs(pairs: pd.DataFrame, label: str, epsilon: float) -> Claim:
    name = f"loss with epsilon {label} up to the best rate"
    rows = pairs[pairs["stable"] & (pairs["epsilon"] == epsilon)]
    if rows["cost"].isna().all():
        return cannot_tell(
            name, FINDINGS["large"], f"no run of {label} has one at the usual beside it"
        )
    share = float(np.exp(np.log(rows["share"]).mean()))
    also = f"The epsilon is {share:.2g} of the gradient RMS." if math.isfinite(share) else ""
    return claim(
        name,
        FINDINGS["large"],
        f"the final loss with epsilon {label} minus that with the usual, at rates up to the best,",
        pooled(_by_rung(rows, "cost"), sd=PAIRED_SD),
        "higher",
        unit="nats",
        digits=4,
        also=also,
    )


def _onset(pairs: pd.DataFrame) -> pd.DataFrame:
    """log10 of the share at which each size, rate (up to the best) and seed pays COST, as `y`.

    Between two epsilons on a straight line of the log cost; where the smallest epsilon costs that
    much already, or the largest doesn't, there is none.
    """
    found = []
    for (rung, lr, seed), part in pairs[pairs["stable"]].groupby(CELL):
        part = part.sort_values("epsilon")
        x, cost = np.log10(part["share"].to_numpy(float)), part["cost"].to_numpy(float)
        above = cost >= COST
        place = int(above.argmax())
        if not above.any() or place == 0 or not np.isfinite(x).all():
            continue
        around = slice(place - 1, place + 1)
        logs = np.log(np.maximum(cost[around], COST / 1e3))
        y = float(np.interp(math.log(COST), logs, x[around]))
        found.append((rung, part["rung_n"].iloc[0], lr, seed, y))
    return pd.DataFrame(found, columns=["rung", "rung_n", "lr", "seed", "y"])


def _share(onset: pd.DataFrame) -> Claim:
    name = "epsilon over gradient RMS at which loss suffers"
    finding = "epsilon matters once gradients come near it"
    if onset.empty:
        return cannot_tell(name, finding, f"no size and rate crosses {COST:g} nats between two")
    found = pooled(_by_rung(onset, "y"), sd=ONSET_SD)
    low, value, high = (10**x for x in (found.low, found.value, found.high))
    return claim(
        name,
        finding,
        f"log10 of epsilon over the gradient RMS at which the loss is {COST:g} nats higher",
        found,
        "same",
        tolerance=NEARBY,
        unit="decades",
        digits=2,
        also=f"That is {value:.2g} of the RMS ({low:.2g} to {high:.2g}).",
    )


def _weakened(pairs: pd.DataFrame) -> Claim:
    name = "updates against r / (r + epsilon)"
    finding = "updates shrink as gradients fall to epsilon"
    rows = pairs[pairs["formula"].between(*WEAKENED) & (pairs["kept"] > 0)]
    if rows.empty:
        return cannot_tell(name, finding, "no run lost between 5 % and 70 % of its updates")
    rows = rows.assign(off=np.log10(rows["kept"] / rows["formula"]))
    return claim(
        name,
        finding,
        "log10 of the update RMS over that at the usual epsilon, minus log10 of r / (r + epsilon),",
        pooled(_by_rung(rows, "off"), sd=NOISE),
        "same",
        tolerance=SAME_UPDATE,
        unit="decades",
        also=f"{len(rows)} runs lose between 5 % and 70 %.",
    )


def _law(runs: Runs, gradient: str, usual: float) -> Law | None:
    own = runs.trials[runs.trials[EPSILON] == usual]
    if own["rung"].nunique() < 2 or gradient not in runs.telemetry:
        return None
    telemetry = runs.telemetry[["run_id", "step", gradient]]
    return fit(read_signal(own, telemetry, signal=gradient, window=END), FORM)


def _at_scale(law: Law | None, usual: float, share: float) -> Claim:
    n, lr = SEEN
    name = f"gradient RMS at {n:.2g} parameters"
    finding = f"at {n:.2g} parameters and learning rate {lr:g} the gradient RMS is about {usual:g}"
    if law is None or not law.lrs[0] <= lr <= law.lrs[-1]:
        return cannot_tell(name, finding, f"no law of two sizes has a learning rate of {lr:g}")
    belief = law.believe(n, lr)
    median, low, high = (10**x for x in belief.interval(LEVEL))
    near = belief.below(math.log10(NEAR * usual))
    reach = law.reach(n, lr)
    verdict = surely(near) if reach.can_tell else Verdict.CANNOT_TELL
    text = (
        f"Source A: {finding}. {verdict.here}: the law's line, carried on from {law.largest:.2g} "
        f"parameters, has {median:.1e} there ({LEVEL:.0%} interval {low:.1e} to {high:.1e}; the "
        f"probability that it is under {NEAR:g} epsilon is {near:.2f})"
    )
    numbers = {"gradient_rms": median, "probability_near": near}
    met = {f"meets {usual:g}": _reaches(law, lr, usual)}
    if math.isfinite(share):
        met[f"is so low that {usual:g} is {share:.2g} of it"] = _reaches(law, lr, usual / share)
    clauses = [f"{words} at {at:.1e} parameters" for words, at in met.items() if math.isfinite(at)]
    text += f"; it {' and '.join(clauses)}." if clauses else "."
    if not reach.can_tell:
        text += f" No forecast: {reach.reason}."
    return Claim(name, text, verdict, numbers)


def _reaches(law: Law, lr: float, level: float) -> float:
    """The parameters at which the law's middle falls to a level; NaN where it doesn't by 1e15."""
    sizes = np.geomspace(law.smallest, 1e15, 400)
    middle = np.array([law.believe(float(n), lr).interval(LEVEL)[0] for n in sizes])
    below = middle <= math.log10(level)
    return float(sizes[below.argmax()]) if below.any() else math.nan


def _table(pairs: pd.DataFrame) -> pd.DataFrame:
    keys = ["rung_n", "rung", "lr", "epsilon"]
    table = pairs.groupby(keys, as_index=False).agg(
        n_params=("n_params", "mean"),
        gradient_rms=("r_usual", "mean"),
        epsilon_over_r=("share", "mean"),
        cost=("cost", "mean"),
        update_kept=("kept", "mean"),
        formula=("formula", "mean"),
        up_to_best=("stable", "all"),
        n_seeds=("seed", "nunique"),
    )
    return table.drop(columns="rung_n").rename(columns={"rung": "size"})
