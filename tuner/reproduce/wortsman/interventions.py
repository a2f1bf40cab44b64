"""Every intervention against none, in one table, which source A doesn't have."""

from collections.abc import Mapping
from typing import Any

from ray import tune

from foretune.analysis.claims.answer import Answer
from foretune.analysis.records.load import Records
from foretune.analysis.wortsman.curves import intervention_table
from foretune.search_spaces import interventions
from foretune.tuner.config.apply import changed_fields, intervene
from foretune.tuner.config.interventions import INTERVENTIONS as BY_NAME
from foretune.tuner.config.override import dotted
from foretune.tuner.config.resolve import resolve
from foretune.tuner.reproduce.figure import Figure, FigureSweep, FigureSweeps
from foretune.tuner.reproduce.wortsman.judges import variants_of
from foretune.tuner.reproduce.wortsman.scales import Scale, at_scales

NOT_COMPARABLE = ("rms-scaled-lr", "mup-simple", "mup-intermediate", "mup-full")
"""Interventions after which a learning rate means another step."""


def _alone_and_together(scale: Scale) -> dict[str, FigureSweep]:
    """Interventions alone and together, at one size."""
    start = {"steps": scale.steps, **scale.overrides}
    base = resolve(scale.preset, size=scale.few_sizes[0], overrides=start)
    before = dotted(base)
    compared: dict[str, dict[str, Any]] = {interventions.NONE: {}}
    for names in (*BY_NAME, *interventions.TOGETHER):
        after = dotted(intervene(base, names.split("+")))
        compared[names] = {field: after[field] for field in changed_fields(before, after)}
    space = {
        **interventions.SPACE,
        "intervention": tune.grid_search(list(compared)),
        "model.size": scale.few_sizes[0],
        "optimizer.lr": tune.grid_search(list(scale.rates)),
    }
    return {"interventions": scale.of(space, compared)}


def _against_none(records: Mapping[str, Records], parts: FigureSweeps) -> dict[str, Answer]:
    variants = variants_of(parts)
    strangers = [n for n in variants if set(n.split("+")) & set(NOT_COMPARABLE)]
    return {"": intervention_table.interventions(records, variants, incomparable=strangers)}


INTERVENTIONS = Figure(
    question="Which interventions lower the sensitivity to the learning rate, at what loss?",
    parts=at_scales(_alone_and_together, "tiny", "small"),
    judge=_against_none,
    missing="source A has no such table, and its preset has two of them on already.",
)
