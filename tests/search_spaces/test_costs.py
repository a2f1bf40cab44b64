"""What a space's docstring says that it costs at source A's scales is what is planned."""

import importlib
import re
from pathlib import Path

import pytest

from foretune import search_spaces
from foretune.tuner.planning.estimates import cost_of
from foretune.tuner.reproduce.catalog import FIGURES
from foretune.tuner.reproduce.run import plan_part
from foretune.tuner.reproduce.wortsman.scales import SCALE_OF

COST = re.compile(r"at `(small|paper)` (\d+) trials, ([\d.e]+) FLOP")


SPACES = {path.stem: path for path in Path(search_spaces.__file__).parent.rglob("*.py")}


def module(name):
    """Returns a space's module by the name of its file."""
    inside = SPACES[name].relative_to(Path(search_spaces.__file__).parent).with_suffix("")
    return importlib.import_module(".".join(("foretune.search_spaces", *inside.parts)))


def costs_of(name):
    text = " ".join((module(name).__doc__ or "").split())
    return text, {scale: (int(n), float(flop)) for scale, n, flop in COST.findall(text)}


COSTED = sorted(name for name in SPACES if costs_of(name)[1])


def test_every_question_of_source_a_says_what_it_costs():
    assert len(COSTED) == 18
    assert {"epsilon", "kappa", "mup", "steps", "z_loss", "clipping", "optimizer"} < set(COSTED)


@pytest.mark.slow
@pytest.mark.parametrize("name", COSTED)
def test_the_costs_are_those_of_the_plans(name):
    text, costs = costs_of(name)
    figure = re.search(r"`foretune reproduce (\w+) --dry-run`", text)
    for scale, (trials, flop) in costs.items():
        if figure:
            parts = FIGURES[figure[1]].parts[scale]
        else:
            variants = module(name).VARIANTS
            parts = {name: SCALE_OF[scale].part(variants)}
        runs = [
            run
            for label, part in parts.items()
            for run in plan_part(part, label, seeds=1, overrides={}).runs(check_data=False)
        ]
        assert len(runs) == trials, scale
        assert sum(cost_of(run).flops for run in runs) == pytest.approx(flop, rel=0.06), scale
