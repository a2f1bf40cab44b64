"""The table of interventions names those that help, and its rule picks one that costs nothing."""

import pytest
from planted import by_name, decades, noise, records

from foretune.analysis.stats.verdict import Verdict
from foretune.analysis.wortsman.curves.intervention_table import interventions, recommended

HOLDS, FAILS, CANNOT_TELL = Verdict

FIELDS = {
    "none": {"kind": "none"},
    "cure": {"kind": "cure"},
    "dear": {"kind": "dear"},
    "idle": {"kind": "idle"},
    "harm": {"kind": "harm"},
    "scaled": {"kind": "scaled"},
}
VARIANTS = {label: dict(fields) for label, fields in FIELDS.items()}
SLOPE = {"none": 0.4, "cure": 0.1, "dear": 0.0, "idle": 0.4, "harm": 0.8, "scaled": 0.0}
COST = {"dear": 0.5}


def loss(run):
    kind = run["kind"]
    return 2.0 + SLOPE[kind] * max(0.0, decades(run)) + COST.get(kind, 0.0) + noise(run, 0.01)


def logit(run, steps):
    return 10.0 + 1e3 * SLOPE[run["kind"]] * run["lr"] + 0.0 * steps


@pytest.fixture(scope="module")
def answer():
    made = records(FIELDS.values(), widths=(64,), loss=loss, columns={"max_attention_logit": logit})
    return interventions({"sweep": made}, VARIANTS, incomparable=["scaled"])


def test_what_lowers_sensitivity_at_no_loss_is_named(answer):
    found = by_name(answer)["interventions that lower LR sensitivity at no loss"]
    free, dear, worse = found.sentence.split(";")[:3]
    assert "cure (" in free
    assert "idle" not in found.sentence
    assert "scaled" not in found.sentence
    assert "dear (" in dear
    assert "harm (" in worse
    assert found.verdict is HOLDS
    verdicts = answer.table.set_index("intervention")["verdict"].to_dict()
    assert verdicts["none"] == "baseline"
    assert verdicts["idle"] == "no clear difference"


def test_the_rule_passes_over_what_pays_with_loss(answer):
    choice = recommended(answer.table)
    assert choice.label == "cure"
    assert choice.rule.startswith("the lowest LR sensitivity among those whose best loss")
    assert "-0.1" in choice.reason


def test_the_table_has_the_numbers(answer):
    row = answer.table.set_index("intervention").loc["cure"]
    assert row["d_sensitivity"] == pytest.approx(-0.3 * 3.0 / 5, abs=0.02)
    assert row["d_sensitivity_low"] < row["d_sensitivity"] < row["d_sensitivity_high"]
    assert row["max_logit"] == pytest.approx(10 + 1e3 * 0.1 * 0.3)
    assert (row["d_seeds"], row["n_lr"]) == (3, 5)


def test_without_the_baseline_nothing_is_recommended():
    made = records([FIELDS["cure"]], widths=(64,), loss=loss)
    answer = interventions({"sweep": made}, VARIANTS)
    assert recommended(answer.table).label == ""
    assert [claim.verdict for claim in answer.claims] == [CANNOT_TELL]
    assert "no run of none" in answer.claims[0].sentence
    by_name(answer)
    with pytest.raises(ValueError, match="must be among the variants, got 'base'"):
        interventions({"sweep": made}, VARIANTS, baseline="base")


def test_a_baseline_that_is_best_is_kept():
    made = records([FIELDS["none"], FIELDS["harm"]], widths=(64,), loss=loss)
    pair = {label: VARIANTS[label] for label in ("none", "harm")}
    answer = interventions({"sweep": made}, pair)
    assert recommended(answer.table).label == "none"
    assert [claim.verdict for claim in answer.claims] == [FAILS, CANNOT_TELL]
