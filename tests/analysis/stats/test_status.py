"""A status is its text, in every file and table, and knows its word and its reason."""

import copy
import json
import pickle

import pandas as pd
import pytest

from foretune.analysis.stats.status import Status, Trust

MAKE = {
    Trust.OK: Status.ok,
    Trust.CAUTION: Status.caution,
    Trust.CANNOT_TELL: Status.cannot_tell,
}
REASONS = ("", "3 sizes", "cannot tell: as another said", "a colon: and \u2013 more")


@pytest.fixture(params=[(trust, reason) for trust in Trust for reason in REASONS])
def case(request):
    """Word, reason and the status that they make."""
    trust, reason = request.param
    return trust, reason, MAKE[trust](reason)


def test_it_reads_as_word_and_reason_and_gives_both_back(case):
    trust, reason, status = case
    assert status == (f"{trust}: {reason}" if reason else str(trust))
    assert (status.trust, status.reason) == (trust, reason)
    assert (status.is_ok, status.can_tell) == (trust == "ok", trust != "cannot tell")


def test_it_survives_copies_files_and_tables(case, tmp_path):
    trust, reason, status = case
    for same in (copy.deepcopy(status), pickle.loads(pickle.dumps(status))):
        assert type(same) is Status
        assert (same, same.trust) == (status, trust)
    assert json.dumps(status) == json.dumps(str(status))
    path = tmp_path / "table.csv"
    pd.DataFrame([{"status": status}]).to_csv(path, index=False)
    assert Status(pd.read_csv(path)["status"].item()).reason == reason


@pytest.mark.parametrize(
    "text", ["", "fine", "OK", "okay: so", "ok:so", "ok, so", "cannot", ": ok"]
)
def test_another_word_is_refused(text):
    with pytest.raises(ValueError, match=f"a status must be one of ok, caution, .*{text!r}"):
        Status(text)
