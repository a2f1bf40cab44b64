"""Excess means what it says at its edges, and its levels stand in one place."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foretune.analysis.measures.excess import DEGRADED, UNSTABLE, excess, references

ANALYSIS = Path(__file__).parents[3] / "analysis"


@pytest.mark.parametrize(
    ("final", "share"),
    [(2.0, 0), (2.1, 0.1), (2.25, 0.25), (3.0, 1), (9.0, 1), (math.inf, 1), (1.5, -0.5)],
)
def test_it_is_the_share_lost_of_what_there_was_to_gain(final, share):
    assert excess(final, best=2.0, reference=3.0) == pytest.approx(share)


@pytest.mark.parametrize("unknown", ["final", "best", "reference"])
def test_what_is_not_known_stays_unknown(unknown):
    """A run that was stopped early has no final loss, so it isn't shown to have lost anything."""
    given = {"final": 2.5, "best": 2.0, "reference": 3.0} | {unknown: math.nan}
    assert np.isnan(excess(given["final"], best=given["best"], reference=given["reference"]))


@pytest.mark.parametrize(("best", "below"), [(3.0, "0"), (3.5, r"0\.5"), (math.inf, "inf")])
def test_where_nothing_was_to_gain_it_is_refused(best, below):
    with pytest.raises(ValueError, match=rf"reference must be above best, got {below} nats below"):
        excess([2.0, 2.0], best=[2.0, best], reference=3.0)


def test_the_reference_is_the_given_one_the_recorded_one_or_the_loss_at_init():
    frame = pd.DataFrame({"loss_at_init": [6.0, 6.0], "reference_loss": [3.1, 3.2]})
    some = frame.assign(reference_loss=[3.1, math.nan])
    found = [references(frame, 3.0), references(frame), references(some)]
    assert [list(values) for values, _ in found] == [[3.0, 3.0], [3.1, 3.2], [6.0, 6.0]]
    assert [text.split(",")[0] for _, text in found] == [
        "the given 3 nats",
        "the recorded reference loss",
        "the loss at init",
    ]


def test_nobody_else_defines_a_level():
    assert (DEGRADED, UNSTABLE) == (0.10, 0.40)
    defined = re.compile(r"^\w*(UNSTABLE|DEGRADED|WORTH|PENALTY)\w*(: \w+)? = 0?\.\d", re.MULTILINE)
    files = [p.name for p in ANALYSIS.rglob("*.py") if defined.search(p.read_text("utf-8"))]
    assert files == ["excess.py"]
