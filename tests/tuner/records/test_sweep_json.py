"""sweep.json: keys in the order that they have always had, and none lost."""

import json
from dataclasses import replace

import pytest

from foretune.tuner.records.sweep_json import SweepRecord

PLAN = {"space_name": "own", "space": [{}], "search": "grid", "seeds": 1, "seed": 0}
SWEEP = SweepRecord(
    command="foretune sweep",
    created="2026-11-28T09:00:00+0000",
    plan=PLAN,
    scheduler="asha",
    execution={"scheduler": "asha", "tracking_uri": ""},
    versions={"python": "3.12.3"},
    commit="abc",
    machine={"cpus": 2},
    trials=4,
)
KEYS = [
    "format", "command", "created", *PLAN, "scheduler", "execution", "versions", "commit",
    "machine", "trials",
]  # fmt: skip


def test_keys_are_in_the_order_that_they_have_always_had(tmp_path):
    SWEEP.write(tmp_path)
    assert list(json.loads((tmp_path / "sweep.json").read_text())) == KEYS
    drawn = replace(SWEEP, draws={"space": []}).to_json()
    at = KEYS.index("scheduler")
    assert list(drawn) == [*KEYS[:at], "draws", *KEYS[at:]]


@pytest.mark.parametrize("sweep", [SWEEP, replace(SWEEP, draws={"space": []})])
def test_it_is_read_back_as_it_was(sweep, tmp_path):
    sweep.write(tmp_path)
    assert SweepRecord.read(tmp_path) == sweep


def test_what_another_version_has_put_there_is_not_lost():
    facts = {**SWEEP.to_json(), "carbon": 3}
    del facts["commit"]
    assert SweepRecord.from_json(facts).to_json() == {**facts, "commit": "unknown"}


def test_no_sweep_and_a_damaged_one_are_sentences(tmp_path):
    with pytest.raises(ValueError, match=r"^DIR must hold a sweep, got .* without sweep.json"):
        SweepRecord.read(tmp_path)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ValueError, match=r"^sweep.json must hold execution, got nothing"):
        SweepRecord.read(tmp_path)
