import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from synthetic import GRID, Truth, start_sweep, write_run, write_sweep

from foretune import analysis
from foretune.analysis.figures.plots import sensitivity_figure

SMALL = {"widths": (16, 32), "lrs": (1e-2, 1e-1, 3e-1)}
"""A sweep whose runs cross the line at both sizes."""
FIGURES = {"loss.png", "sensitivity.png", "signal.png", "traces.png", "critical_lr.png"}


class Page(HTMLParser):
    """The tags that were left open, and the images with their stand-in text."""

    def __init__(self, path):
        super().__init__()
        self.open, self.images, self.words = [], {}, []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images[dict(attrs)["src"]] = dict(attrs)["alt"]
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def read(path):
    found = Page(path)
    assert not found.open
    assert all(found.images.values())
    assert all((path.parent / name).stat().st_size > 1000 for name in found.images)
    assert "Traceback" not in found.text
    return found


def test_a_full_sweep_gives_a_full_page(tmp_path):
    root = write_sweep(tmp_path / "s", seeds=(0, 1), noise=0.05)
    prediction = tmp_path / "p.json"
    n_params = Truth(width=128).n_params
    prediction.write_text(analysis.predict(root, n_params=n_params, lr=3e-2).to_json())
    check = write_sweep(tmp_path / "check", widths=(128,), qk_norms=(False,))
    path = analysis.write_report(root, checks=[(prediction, check)])
    assert path == root / "report" / "index.html"
    found = read(path)
    assert set(found.images) == FIGURES
    assert "Confirmed: at 589,824 parameters" in found.text
    assert "foretune sweep lr --preset lm-tiny --sizes 16 32 64 --out <DIR>" in found.text
    assert "0123abc" in found.text
    assert "torch 2.14.1" in found.text
    assert "head dim 16" in found.text
    assert "What is missing" not in found.text
    sensitivity = pd.read_csv(root / "report" / "sensitivity.csv")
    assert len(sensitivity) == 6
    for name in ("trials", "cells", "critical_lr", "read_windows", "forecasts", "claims"):
        assert len(pd.read_csv(root / "report" / f"{name}.csv"))


def test_the_page_needs_nothing_from_the_network(sweep_page):
    assert not re.search(r"https?://|<script|@import|<link", sweep_page)
    assert "prefers-color-scheme: dark" in sweep_page


def test_a_sweep_of_one_format_has_no_section_on_formats(sweep_page):
    assert "Number formats" not in sweep_page


def test_outcomes_are_counted_with_their_reasons_and_everything_is_escaped(tmp_path):
    root = write_sweep(tmp_path / "s", widths=(16, 32), lrs=GRID[:3])
    write_run(root, Truth(width=16, lr=0.1, outcome="diverged", last_step=20))
    write_run(root, Truth(width=32, lr=0.1, outcome="stopped", last_step=10))
    write_run(root, Truth(width=32, lr=0.3, outcome="failed", last_step=2))
    write_run(root, Truth(width=16, lr=0.3, outcome=None, last_step=5))
    path = analysis.write_report(root)
    found = read(path)
    assert "the loss stopped being finite" in found.text
    assert "stopped by the scheduler" in found.text
    assert "1 diverged, 1 stopped, 1 failed, 1 unfinished" in found.text
    assert "`foretune resume` continues them" in found.text
    source = path.read_text(encoding="utf-8")
    assert "&lt;OutOfMemory&gt; &amp; so on" in source
    assert "<OutOfMemory>" not in source
    assert "--out &lt;DIR&gt;" in source


def empty(root):
    return start_sweep(root)


def unfinished(root):
    write_run(start_sweep(root), Truth(outcome=None, last_step=5))
    return root


def not_begun(root):
    write_run(start_sweep(root), Truth(outcome=None, last_step=0))
    return root


def all_failed(root):
    write_run(start_sweep(root), Truth(outcome="failed", last_step=0))
    return root


def one_diverged(root):
    write_run(start_sweep(root), Truth(outcome="diverged", last_step=1))
    return root


def one_run(root):
    write_run(start_sweep(root), Truth())
    return root


def one_lr(root):
    return write_sweep(root, **SMALL | {"lrs": (1e-2,)})


def one_size(root):
    return write_sweep(root, **SMALL | {"widths": (16,)})


def no_twin(root):
    return write_sweep(root, **SMALL, qk_norms=(False,))


def only_cured(root):
    return write_sweep(root, **SMALL, qk_norms=(True,))


def no_logits(root):
    return write_sweep(root, **SMALL, logits=False)


def all_stopped(root):
    return write_sweep(root, **SMALL, outcome="stopped", last_step=12)


def twin_unfinished(root):
    write_sweep(root, **SMALL, qk_norms=(False,))
    write_run(root, Truth(qk_norm=True, outcome=None, last_step=4))
    return root


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (empty, "No run has ended yet"),
        (unfinished, "No run has ended yet"),
        (not_begun, "Cannot tell anything yet"),
        (all_failed, "No run has ended yet"),
        (one_diverged, "Only one learning rate was run"),
        (one_run, "Only one size was run"),
        (one_lr, "Only one learning rate was run"),
        pytest.param(one_size, "Only one size was run", marks=pytest.mark.slow),
        pytest.param(no_twin, "No twin with qk-layernorm was run", marks=pytest.mark.slow),
        (only_cured, "crossed inside the grid at 0 sizes"),
        (no_logits, "No run recorded max_attention_logit"),
        pytest.param(twin_unfinished, "Some runs are unfinished", marks=pytest.mark.slow),
        pytest.param(all_stopped, "Some runs were stopped early", marks=pytest.mark.slow),
    ],
)
def test_a_partial_sweep_says_what_is_missing(tmp_path, make, says):
    found = read(analysis.write_report(make(tmp_path / "s")))
    assert says in found.text
    assert "One seed was run" in found.text or "nothing to judge" in found.text


@pytest.mark.slow
def test_a_random_search_of_many_families_stays_readable(tmp_path):
    root = start_sweep(tmp_path / "s")
    for index in range(9):
        decay = ("optimizer.weight_decay", 1e-4 * (index + 1))
        write_run(root, Truth(lr=1e-3 * 1.7**index, seed=index, extra=(decay,)))
    found = read(analysis.write_report(root))
    assert "5 families with fewer runs are only in the tables" in found.text


def test_a_model_of_ones_own_needs_no_ladder(tmp_path):
    root = write_sweep(tmp_path / "s", qk_norms=(False,), logits=False)
    for path in root.glob("runs/*/run.json"):
        run = json.loads(path.read_text()) | {"size": None}
        run["config"]["model"] = {"kind": "mine", "hidden": run["config"]["model"]["width"]}
        path.write_text(json.dumps(run))
    found = read(analysis.write_report(root))
    assert {"loss.png", "sensitivity.png"} <= set(found.images)
    assert "No run recorded max_attention_logit" in found.text


def test_the_page_of_a_model_without_attention_asks_for_no_logits(tmp_path):
    root = write_sweep(tmp_path / "s", qk_norms=(False,), logits=False)
    for path in root.glob("runs/*/run.json"):
        run = json.loads(path.read_text())
        run["config"]["model"] = {"kind": "convnet", "width": run["config"]["model"]["width"]}
        path.write_text(json.dumps(run))
    found = read(analysis.write_report(root))
    assert "a model without attention logits has no critical learning rate of this kind" in (
        found.text
    )
    for wrong in ("through a tap", "Danger line", "signal reaches", "widen the grid or add sizes"):
        assert wrong not in found.text


def test_a_panel_without_numbers_is_not_drawn(tmp_path):
    """The best learning rate is the grid's highest, so there is no side above it."""
    root = write_sweep(tmp_path / "s", lrs=(1e-3, 3e-3), qk_norms=(False,))
    table = analysis.sensitivity_table(analysis.load(root).trials)
    assert [axes.get_title() for axes in sensitivity_figure(table).axes] == ["over the whole grid"]
    found = read(analysis.write_report(root))
    assert "the right one leaves those rates out" not in found.text


@pytest.mark.parametrize("wrong", [{"level": 2.0}, {"threshold": -1.0}])
def test_a_report_of_nothing_is_refused_before_it_is_written(tmp_path, wrong):
    root = write_sweep(tmp_path / "s", widths=(16,), lrs=(1e-2,))
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        analysis.write_report(root, **wrong)
    assert not (root / "report").exists()


@pytest.mark.slow
def test_a_refuted_forecast_does_not_hold_on_the_page(sweep, tmp_path):
    prediction = tmp_path / "p.json"
    n_params = Truth(width=128).n_params
    prediction.write_text(analysis.predict(sweep, n_params=n_params).to_json())
    check = start_sweep(tmp_path / "check")
    for lr in GRID:
        write_run(check, Truth(width=128, lr=lr, seed_dex=0.8))
    found = read(analysis.write_report(sweep, checks=[(prediction, check)]))
    assert "Refuted" in found.text
    assert "does not hold" in found.text
