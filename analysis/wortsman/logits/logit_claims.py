"""What the law of the largest attention logit shows: sentences."""

import math

from foretune.analysis.claims.claim import Claim
from foretune.analysis.claims.intervals import LEVEL, Interval
from foretune.analysis.claims.words import cannot_tell, numbers, plural, with_interval
from foretune.analysis.laws.laws import FORMS
from foretune.analysis.stats.verdict import Verdict
from foretune.analysis.wortsman.logits.logit_reading import Reading, critical_pair, error_of


def falls(reading: Reading, threshold: float) -> Claim:
    finding = "logits grow with N at every learning rate, so models diverge at lower and lower ones"
    name = "the critical learning rate and N"
    law = reading.all_sizes
    if math.isnan(law.slope):
        return cannot_tell(name, finding, _plain(reading, law.status.reason))
    seeds = reading.crossings["seed"].nunique()
    found = Interval(law.slope, law.slope_low, law.slope_high, seeds, law.n_sizes)
    verdict = Verdict.of(found.sign < 0, found.sign > 0)
    text = (
        f"Source A: {finding}. {verdict.here}: the learning rate at which the largest logit, read "
        f"at {reading.at_share:.0%} of the steps, meets {threshold:g} goes as N to the power "
        f"{with_interval(found, '', 2)}, {plural(law.n_measured, 'crossing')} at "
        f"{plural(law.n_sizes, 'size')}, {plural(seeds, 'seed')}."
    )
    return Claim(name, text, verdict, numbers(found, "slope"))


def critical_held_out(reading: Reading) -> Claim:
    finding = "what is fitted to smaller models forecasts where the largest one diverges"
    name = "the critical learning rate of the largest size, held out"
    measured, (median, low, high) = critical_pair(reading)
    if not math.isfinite(median) or not math.isfinite(measured):
        why = reading.without_largest.status.reason
        if math.isfinite(median):
            why = "the largest size does not meet the line inside its grid"
        return cannot_tell(name, finding, _plain(reading, why))
    inside = low <= measured <= high
    verdict = Verdict.of(inside, not inside)
    error = math.log10(measured / median)
    text = (
        f"Source A: {finding}. {verdict.here}: without the largest size its critical learning rate "
        f"is forecast as {median:.3g} ({LEVEL:.0%} interval {low:.3g} to {high:.3g}) and measured "
        f"as {measured:.3g}, {error:+.2f} decades off "
        f"({plural(reading.without_largest.n_sizes, 'size')} fitted, "
        f"{plural(reading.crossings['seed'].nunique(), 'seed')})."
    )
    return Claim(
        name, text, verdict, {"measured": measured, "forecast": median, "error_dex": error}
    )


def forecast(reading: Reading, threshold: float) -> Claim:
    """Whether each run of the largest size ends on the side of the line that was forecast."""
    finding = (
        "a parabola per learning rate forecasts the logit of the next size, and its divergence"
    )
    name = "the logit of the largest size, held out"
    error = error_of(reading.held_out)
    if error.empty or reading.law is None:
        return cannot_tell(name, finding, _plain(reading, reading.why))
    right = (error["value"] > threshold) == (error["median"] > threshold)
    surely = (error["low"] > threshold) | (error["high"] < threshold)
    verdict = Verdict.of(bool(right.all()), bool((~right & surely).any()))
    inside = (error["value"] >= error["low"]) & (error["value"] <= error["high"])
    mean = float(error["error"].abs().mean())
    text = (
        f"Source A: {finding}. {verdict.here}: {FORMS[reading.law.form].about}, fitted without the "
        f"largest size, puts {int(right.sum())} of its {plural(len(error), 'run')} on the right "
        f"side of {threshold:g}; it is off by {mean:.2f} decades in the mean "
        f"({error['error'].mean():+.2f} with sign), and {int(inside.sum())} lie inside their "
        f"{LEVEL:.0%} interval "
        f"({plural(error['lr'].nunique(), 'learning rate')}, "
        f"{plural(error['seed'].nunique(), 'seed')})."
    )
    counts = {"right": float(right.mean()), "error_dex": mean, "inside": float(inside.mean())}
    return Claim(name, text, verdict, counts)


def _plain(reading: Reading, why: str) -> str:
    if reading.cells.empty:
        return "no run recorded attention logits there"
    return why
