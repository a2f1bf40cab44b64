"""A verdict has its words in one place, and its column in tables."""

import pandas as pd
import pytest

from foretune.analysis.claims.claim import Claim
from foretune.analysis.stats.verdict import Verdict


@pytest.mark.parametrize(
    ("holds", "fails", "verdict"),
    [
        (True, False, Verdict.HOLDS),
        (False, True, Verdict.FAILS),
        (False, False, Verdict.CANNOT_TELL),
    ],
)
def test_it_is_made_of_two_tests(holds, fails, verdict):
    assert Verdict.of(holds, fails) is verdict


def test_each_has_words_of_its_own():
    assert [str(verdict) for verdict in Verdict] == ["holds", "does not hold", "cannot tell"]
    for words in ("here", "at_this_scale", "column"):
        assert len({getattr(verdict, words) for verdict in Verdict}) == 3
    assert [verdict.choose(1, 2, 3) for verdict in Verdict] == [1, 2, 3]


def test_files_of_claims_are_as_they_were_and_read_back(tmp_path):
    """True, False or nothing in the column `holds`, as before there was a verdict."""
    claims = [Claim(f"{verdict}", "A.", verdict, {"n": 1.0}) for verdict in Verdict]
    path = tmp_path / "claims.csv"
    pd.DataFrame([claim.row() for claim in claims]).to_csv(path, index=False)
    assert path.read_text().splitlines()[:2] == [
        "name,sentence,holds,numbers",
        "holds,A.,True,{'n': 1.0}",
    ]
    table = pd.read_csv(path, keep_default_na=False)
    assert [Verdict.from_column(text) for text in table["holds"].astype(str)] == [*Verdict]
    with pytest.raises(KeyError):
        Verdict.from_column("holds")
