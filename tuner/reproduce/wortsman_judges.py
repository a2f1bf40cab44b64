"""How the answers to source A's figures are drawn from the records of their sweeps.

A judge is given the records of every sweep of a figure, and the sweeps; see
`tuner.reproduce.spec.Judge`. The figures themselves are in `analysis.wortsman.__init__`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from foretune.analysis.claims.answer import Answer
from foretune.analysis.records.load import Records
from foretune.analysis.wortsman.curves.intervention_table import interventions
from foretune.analysis.wortsman.curves.loss_curves import loss_curves
from foretune.analysis.wortsman.curves.source_questions import QUESTIONS
from foretune.analysis.wortsman.gradients.gradient_traces import gradient_traces
from foretune.analysis.wortsman.logits.kappa import forced_logits
from foretune.analysis.wortsman.runs import Variants, split
from foretune.tuner.config.resolve import resolve
from foretune.tuner.config.tokens import Data
from foretune.tuner.data.bigram import bigram_loss
from foretune.tuner.reproduce.spec import Judge, Parts

NOT_COMPARABLE = ("rms-scaled-lr", "mup-simple", "mup-intermediate", "mup-full")
"""Interventions after which a learning rate means another step."""
LARGER = 1e-4
"""An epsilon of figure 12's that stands in for the usual one in models with large gradients."""
WITHOUT, WITH = {"model.qk_norm": False}, {"model.qk_norm": True}


def _variants(parts: Parts, only: Sequence[str] = ()) -> Variants:
    found = {name: fields for part in parts.values() for name, fields in part.variants.items()}
    return {name: found[name] for name in only or found}


def curves(
    figure: str,
    title: str,
    *,
    reference: str = "",
    only: Sequence[str] = (),
    below: Sequence[str] = ("sensitivity",),
) -> Judge:
    """Returns the judge of a figure of loss against learning rate."""

    def judge(records: Mapping[str, Records], parts: Parts) -> dict[str, Answer]:
        answer = loss_curves(
            records,
            _variants(parts, only),
            questions=QUESTIONS[figure],
            reference=reference,
            below=below,
            title=title,
        )
        return {"": answer}

    return judge


def of_variants(judge: Callable[..., Answer], only: Sequence[str] = (), **settings: Any) -> Judge:
    """Returns the judge of a figure of traces of a sweep's variants."""
    return lambda records, parts: {"": judge(records, _variants(parts, only), **settings)}


def of_runs(judge: Callable[..., Answer], **settings: Any) -> Judge:
    """Returns the judge of a figure of the runs of one family."""
    return lambda records, parts: {"": judge(records, **settings)}


def forced(records: Mapping[str, Records], parts: Parts) -> dict[str, Answer]:
    """Figure 10: each variant is an architecture, held against a bigram model of its text."""
    architectures: dict[str, Records] = {}
    bigrams: dict[str, float] = {}
    for label, part in parts.items():
        architectures |= split(records[label], part.variants)
        for name, fields in part.variants.items():
            data = resolve(part.preset, overrides={**part.overrides, **fields}).data
            if isinstance(data, Data):
                bigrams[name] = bigram_loss(data)
    return {"": forced_logits(architectures, bigram=bigrams)}


def no_substitute(records: Mapping[str, Records], parts: Parts) -> dict[str, Answer]:
    """muP without qk-layernorm against itself, and against the standard form with qk-layernorm."""
    bare = {f"{name}, bare": {**f, **WITHOUT} for name, f in _variants(parts).items()}
    still, substitute = QUESTIONS["figE4"][:-1], QUESTIONS["figE4"][-1:]
    title = "Figure E.4: muP without qk-layernorm"
    against = {"qk-layernorm": {"parametrization.name": "standard", **WITH}, **bare}
    return {
        "": loss_curves(records, bare, questions=still, below=("best_lr",), title=title),
        "figE4_substitute": loss_curves(records, against, questions=substitute, title=title),
    }


def near_epsilon(records: Mapping[str, Records], parts: Parts) -> dict[str, Answer]:
    """At AdamW's usual epsilon, and at one that small models' gradients reach."""
    usual = {"logits": records["logits"]}
    larger = {"epsilon": records["epsilon"]}
    return {
        "": gradient_traces(usual, where=WITH),
        "fig13_larger_epsilon": gradient_traces(
            larger, where={"optimizer.epsilon": LARGER}, name=f"Figure 13 at epsilon {LARGER:g}"
        ),
    }


def table_of_interventions(records: Mapping[str, Records], parts: Parts) -> dict[str, Answer]:
    """Every intervention against none."""
    variants = _variants(parts)
    strangers = [n for n in variants if set(n.split("+")) & set(NOT_COMPARABLE)]
    return {"": interventions(records, variants, incomparable=strangers)}
