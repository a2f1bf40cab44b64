"""A sweep over number formats says on its page how they compare, and only what it can tell."""

import numpy as np
import pandas as pd
import pytest
from planted import FORMATS
from synthetic import Truth, start_sweep, write_run

from foretune import analysis
from foretune.analysis.claims.format_summary import compare_formats
from foretune.analysis.report.findings import find, headline, missing
from foretune.analysis.report.report import write_page
from foretune.analysis.stats.verdict import Verdict

HOLDS, FAILS, CANNOT_TELL = Verdict

LRS = (3e-3, 1e-2, 3e-2)


def write_formats(root, *, gap, seeds=(0, 1, 2), widths=(16, 32), formats=FORMATS, also=((),)):
    """A sweep whose ternary runs end `gap` nats higher; `also` are settings of other fields."""
    start_sweep(root)
    for name in formats:
        values = zip(("format", "scale", "norm"), FORMATS[name], strict=True)
        extra = tuple((f"quantization.{field}", value) for field, value in values)
        for width in widths:
            for lr in LRS:
                for seed in seeds:
                    for other in also:
                        write_run(
                            root,
                            Truth(
                                width=width,
                                lr=lr,
                                seed=seed,
                                extra=(*extra, *other),
                                gap=gap * name.startswith("ternary") + 0.001 * np.sin(7 * seed),
                            ),
                        )
    return root


def found_in(root):
    return find(analysis.load(root), checks=(), level=0.9, threshold=100.0)


def formats_in(root):
    return compare_formats(analysis.load(root).trials)


@pytest.fixture(scope="module")
def costly(tmp_path_factory):
    """What is found in a sweep whose ternary runs end 0.3 nats higher."""
    return found_in(write_formats(tmp_path_factory.mktemp("formats") / "s", gap=0.3))


def verdicts(formats, name):
    return {claim.verdict for claim in formats.claims if claim.name.startswith(name)}


def test_formats_that_cost_something_are_said_to(costly):
    formats = costly.formats
    assert (formats.metric, formats.axis, formats.setting) == ("loss", "size", "")
    assert verdicts(formats, "equal width and parameters") == {FAILS}
    assert verdicts(formats, "the norms alone") == {HOLDS}
    assert verdicts(formats, "median instead of mean") == {HOLDS}
    assert len(formats.table) == 8
    assert headline(costly).startswith(
        "At size 32, the final loss of ternary mean + norms is 0.300 nats above that of full "
        "precision, each at its own best learning rate: 90% interval "
    )


def test_formats_that_cost_nothing_are_said_to(tmp_path):
    formats = formats_in(write_formats(tmp_path / "s", gap=-0.1))
    assert verdicts(formats, "equal width and parameters") == {HOLDS}
    assert "0.100 nats below that of full precision" in formats.sentence
    assert all("nats worse" in c.name for c in formats.claims if c.name.startswith("equal"))


def test_the_page_shows_verdicts_figure_and_table(costly):
    text = write_page(costly).read_text(encoding="utf-8")
    root = costly.records.directory
    assert "Number formats</h2>" in text
    assert "Equal width and parameters: at most 0.02 nats worse</h3>" in text
    assert 'src="formats.png"' in text
    assert (root / "report" / "formats.png").stat().st_size > 1000
    assert len(pd.read_csv(root / "report" / "formats.csv")) == 8
    assert len(pd.read_csv(root / "report" / "format_claims.csv")) > 8


def test_nothing_is_said_of_qk_norm_where_it_does_not_vary(costly):
    assert not any("qk_norm" in claim.sentence for claim in costly.claims)
    assert not any("qk-layernorm" in sentence for sentence in missing(costly))


def test_a_sweep_of_one_format_has_nothing_to_compare(sweep):
    assert formats_in(sweep) is None


def test_one_seed_cannot_tell_and_says_so(tmp_path):
    found = found_in(write_formats(tmp_path / "s", gap=0.3, seeds=(0,), widths=(16,)))
    (claim,) = (claim for claim in found.formats.claims if claim.name == "the formats")
    assert claim.verdict is CANNOT_TELL
    assert "takes two seeds, better three; only one was run" in claim.sentence
    assert "fewer than two seeds ran both, so this may be chance" in headline(found)
    assert {claim.verdict for claim in found.formats.claims} == {CANNOT_TELL}


def test_without_full_precision_there_is_nothing_to_compare_with(tmp_path):
    two = ("full precision + norms", "ternary mean + norms")
    found = found_in(write_formats(tmp_path / "s", gap=0.3, formats=two, widths=(16,)))
    assert headline(found) == (
        "No size was run both in full precision and in a format of fewer bits."
    )
    assert verdicts(found.formats, "equal width, against the control") == {FAILS}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "values", "axis", "claim"),
    [
        ("model.qk_norm", (False, True), "lr", "less sensitive to the learning rate"),
        ("optimizer.weight_decay", (0.0, 1e-4), "decay", "less sensitive to decay"),
    ],
)
def test_what_else_varies_decides_what_is_compared(tmp_path, field, values, axis, claim):
    also = tuple(((field, value),) for value in values)
    three = ("full precision", "ternary mean + norms", "ternary median + norms")
    root = write_formats(tmp_path / "s", gap=0.3, widths=(16,), formats=three, also=also)
    found = found_in(root)
    assert found.formats.axis == axis
    assert any(each.name == claim for each in found.formats.claims)
    assert 'src="formats.png"' in write_page(found).read_text(encoding="utf-8")


def test_settings_of_another_field_are_judged_apart(tmp_path):
    also = tuple((("model.depth", depth),) for depth in (2, 3))
    formats = formats_in(write_formats(tmp_path / "s", gap=0.3, widths=(16,), also=also))
    names = {claim.name for claim in formats.claims if claim.name.startswith("equal width and")}
    assert names == {
        f"equal width and parameters: at most 0.02 nats worse (model.depth={n})" for n in (2, 3)
    }
    assert "(model.depth=2)" in formats.sentence or "model.depth=2, the" in formats.sentence


def test_full_precision_stands_in_every_setting_of_the_quantization(tmp_path):
    """A start after half of the run is a setting of ternary runs alone."""
    root = write_formats(tmp_path / "s", gap=0.3, widths=(16,), formats=("full precision",))
    late = tmp_path / "late"
    for start in (0.0, 0.5):
        also = ((("quantization.start", start),),)
        write_formats(
            late / str(start), gap=0.3, widths=(16,), formats=("ternary mean + norms",), also=also
        )
        for run in (late / str(start) / "runs").iterdir():
            run.rename(root / "runs" / run.name)
    formats = formats_in(root)
    assert verdicts(formats, "equal width and parameters") == {FAILS}
    assert sum(c.name.startswith("equal width and") for c in formats.claims) == 2


def test_images_are_compared_by_their_error(costly):
    trials = costly.records.trials.copy()
    ternary = trials["quantization.format"] == "ternary"
    trials["final_val_accuracy"] = 0.9 - 0.2 * ternary - 0.001 * trials["seed"] * ternary
    formats = compare_formats(trials)
    assert formats.metric == "error"
    assert "the error of ternary" in formats.sentence
    assert "at most 0.01 of all images worse" in formats.claims[0].name


def test_runs_that_have_not_ended_say_nothing(tmp_path):
    trials = analysis.load(write_formats(tmp_path / "s", gap=0.3, seeds=(0,))).trials
    assert compare_formats(trials.assign(outcome="unfinished")) is None
    assert compare_formats(trials.iloc[:0]) is None
