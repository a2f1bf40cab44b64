"""A figure from outside of the tree: sweep, question, judge, drawing, and a line in FIGURES."""

import pytest
from planted import by_name, decades, noise, records

from foretune.analysis.claims.answer import Answer
from foretune.analysis.figures.canvas import draw_legend, log_x, panel_row
from foretune.analysis.wortsman.runs import gather
from foretune.tuner.cli.list import list_names
from foretune.tuner.reproduce.catalog import FIGURES
from foretune.tuner.reproduce.figure import Figure
from foretune.tuner.reproduce.run import plan_part, reproduce
from foretune.tuner.reproduce.wortsman.judges import CurveJudge, lower, of_variants
from foretune.tuner.reproduce.wortsman.scales import at_scales

BETAS = {
    "0.95": {"optimizer.beta2": 0.95, "model.qk_norm": True},
    "0.999": {"optimizer.beta2": 0.999, "model.qk_norm": True},
}


def second_moments(scale):
    return {"beta2": scale.part(BETAS, sizes=(16, 32), rates=(1e-2, 1e-1))}


def drawn(sweeps, variants):
    """A drawing of its own: the loss of every run."""
    trials = gather(sweeps, variants).trials
    figure, (axes,) = panel_row(1)
    for variant, own in trials.groupby("variant"):
        axes.plot(own["lr"], own["loss"], "o", label=variant)
    log_x(axes, "learning rate")
    draw_legend(axes)
    return Answer(trials[["variant", "lr", "loss"]], [], figure)


CURVES = Figure(
    question="Is a short memory of second moments less sensitive to the learning rate?",
    parts=at_scales(second_moments),
    judge=CurveJudge(
        title="beta2",
        reference="0.999",
        asks=(lower("sensitivity", "a shorter memory lowers LR sensitivity"),),
    ),
)
DRAWN = Figure(
    question="What is the loss of every run?",
    parts=at_scales(second_moments, "tiny"),
    judge=of_variants(drawn),
    missing="nobody has asked.",
)


@pytest.fixture(autouse=True)
def added(monkeypatch):
    monkeypatch.setitem(FIGURES, "beta2", CURVES)
    monkeypatch.setitem(FIGURES, "beta2-runs", DRAWN)


def test_it_is_listed_planned_and_costed_with_the_others(capsys):
    assert list_names("figures") == 0
    listed = capsys.readouterr().out
    assert f"{'beta2':20} {CURVES.question}" in listed
    assert reproduce(["beta2", "beta2-runs"], out=None, seeds=3, dry_run=True) == 0
    printed = capsys.readouterr().out
    assert f"beta2: {CURVES.question}\nbeta2-runs: {DRAWN.question}\n" in printed
    assert printed.count("beta2: 24 trials") == 1  # The two figures share the sweep.
    assert "FLOP" in printed


def test_what_it_compares_is_kept_and_what_it_lacks_is_said():
    (part,) = CURVES.parts["tiny"].values()
    runs = plan_part(part, "beta2", seeds=1, overrides={"steps": 6}).runs(check_data=False)
    assert {run.optimizer.beta2 for run in runs} == {0.95, 0.999}
    assert {(run.steps, run.model.width) for run in runs} == {(6, 16), (6, 32)}
    with pytest.raises(ValueError, match="the sweep beta2 depends on it"):
        reproduce(["beta2"], out=None, overrides={"optimizer.beta2": 0.9}, dry_run=True)
    with pytest.raises(ValueError, match="of tiny for beta2-runs, got small: nobody has asked"):
        reproduce(["beta2-runs"], out=None, scale="small", dry_run=True)


def test_its_judges_find_what_was_planted():
    def loss(run):
        steep = 0.3 if run["optimizer.beta2"] == 0.999 else 0.1
        return 2.0 + steep * decades(run) ** 2 + noise(run, 0.01)

    planted = {"beta2": records(BETAS.values(), loss=loss, widths=(16, 32))}
    parts = CURVES.parts["tiny"]
    (answer,) = CURVES.judge(planted, parts).values()
    found = by_name(answer)["LR sensitivity, 0.95 against 0.999"]
    assert found.sentence.startswith("Source A: a shorter memory lowers LR sensitivity.")
    assert found.numbers["value"] < -0.1
    (own,) = DRAWN.judge(planted, parts).values()
    assert len(own.table) == 2 * 2 * 5 * 3
    legend = own.figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["0.95", "0.999"]
