"""Attention logits that grow with size and rate until training diverges, and what holds them."""

from collections.abc import Mapping
from typing import Any

from ray import tune

from foretune.analysis.claims.answer import Answer
from foretune.analysis.records.load import Records
from foretune.analysis.wortsman.curves.questions import GROWS, Compare, Trend
from foretune.analysis.wortsman.logits.alignment import logit_growth
from foretune.analysis.wortsman.logits.attention_growth import attention_traces
from foretune.analysis.wortsman.logits.kappa import forced_logits
from foretune.analysis.wortsman.logits.logit_law import logit_law
from foretune.analysis.wortsman.runs import split
from foretune.search_spaces.grids import Variants
from foretune.search_spaces.wortsman import (
    attention_logits,
    head_scale,
    kappa,
    pointwise_attention,
    qk_norm_span,
)
from foretune.tuner.config.resolve import resolve
from foretune.tuner.config.tokens import Data
from foretune.tuner.data.bigram import bigram_loss
from foretune.tuner.reproduce.figure import DIGITS, Figure, FigureSweep, FigureSweeps
from foretune.tuner.reproduce.wortsman.judges import (
    WITHOUT,
    CurveJudge,
    lower,
    of_runs,
    of_variants,
)
from foretune.tuner.reproduce.wortsman.scales import DETAIL, Scale, at_scales

EARLIER = "without qk-layernorm models diverge at lower learning rates as N grows"


def logits(scale: Scale) -> dict[str, FigureSweep]:
    """Size x learning rate x qk-layernorm, with full telemetry: ten figures read these runs."""
    part = scale.part(attention_logits.VARIANTS, sizes=scale.law_sizes, **scale.detail)
    return {"logits": part}


FIG1 = Figure(
    question="Does qk-layernorm make training less sensitive to the learning rate?",
    parts=at_scales(logits),
    judge=CurveJudge(
        title="Figure 1: qk-layernorm",
        reference="without qk-layernorm",
        asks=(
            lower("sensitivity", "qk-layernorm lowers LR sensitivity"),
            lower("high_side", "qk-layernorm lowers LR sensitivity"),
            lower("high_loss", "with qk-layernorm high learning rates train"),
            *GROWS,
            Trend(measure="best_lr", expected="lower", finding=EARLIER, of="the reference"),
        ),
    ),
)
FIG2 = Figure(
    question="Do attention logits grow until training diverges, at small sizes and high rates, "
    "too?",
    parts=at_scales(logits),
    judge=of_variants(attention_traces, cured="qk-layernorm"),
)
FIG9 = Figure(
    question="Can the largest attention logit, and where it becomes dangerous, be forecast from "
    "smaller models?",
    parts=at_scales(logits),
    judge=of_runs(logit_law, where=WITHOUT),
)
FIG_E1 = Figure(
    question="Do attention logits grow because queries and keys get longer, or because they align?",
    parts=at_scales(logits),
    judge=of_runs(logit_growth, where=WITHOUT),
)


def _kappas(scale: Scale) -> dict[str, FigureSweep]:
    """Forced logits, per architecture, head dimension and context."""
    parts = {"kappa": _kappa(scale, _language_models(scale), scale.preset, scale.overrides)}
    if scale.images:
        dims = (scale.head_dim // 2, scale.head_dim)
        vit = {f"ViT, head_dim {dim}": {"model.head_dim": dim} for dim in dims}
        parts["kappa-vit"] = _kappa(scale, vit, scale.images, DIGITS)
    return parts


def _language_models(scale: Scale) -> dict[str, dict[str, Any]]:
    plain = {
        "model.qk_norm": False,  # The preset of `paper` has it on.
        "model.head_dim": scale.head_dim,
        "model.max_positions": scale.sequence_length,
        "model.norm": "layernorm",
        "model.mlp": "gelu",
        "data.sequence_length": scale.sequence_length,
    }
    found = {"LM": plain}
    for dim in (scale.head_dim // 2, 2 * scale.head_dim):
        found[f"LM, head_dim {dim}"] = plain | {"model.head_dim": dim}
    for length in (scale.sequence_length // 2, 2 * scale.sequence_length):
        positions = {"model.max_positions": length, "data.sequence_length": length}
        found[f"LM, context {length}"] = plain | positions
    found["Llama"] = plain | {"model.norm": "rmsnorm", "model.mlp": "swiglu"}
    return found


def _kappa(
    scale: Scale, variants: Variants, preset: str, overrides: Mapping[str, Any]
) -> FigureSweep:
    grid = {"model.kappa": tune.grid_search(kappa.KAPPAS), "optimizer.lr": 1e-2}
    own = {path for fields in variants.values() for path in fields}
    fixed = {**DETAIL, "steps": scale.steps, "model.width": scale.few_sizes[0], **overrides}
    return FigureSweep(
        space=[{**fields, **grid} for fields in variants.values()],
        preset=preset,
        overrides={path: value for path, value in fixed.items() if path not in own},
        variants=variants,
    )


def _forced(records: Mapping[str, Records], parts: FigureSweeps) -> dict[str, Answer]:
    """Each variant is an architecture, held against a bigram model of its text."""
    architectures: dict[str, Records] = {}
    bigrams: dict[str, float] = {}
    for label, part in parts.items():
        architectures |= split(records[label], part.variants)
        for name, fields in part.variants.items():
            data = resolve(part.preset, overrides={**part.overrides, **fields}).data
            if isinstance(data, Data):
                bigrams[name] = bigram_loss(data)
    return {"": forced_logits(architectures, bigram=bigrams)}


FIG10 = Figure(
    question="How large may attention logits be before a model that is forced to have them learns "
    "worse?",
    parts=at_scales(_kappas),
    judge=_forced,
)


def _head_scales(scale: Scale) -> dict[str, FigureSweep]:
    return {"head-scale": scale.part(head_scale.VARIANTS)}


FIG_E6 = Figure(
    question="Should attention logits be divided by head_dim instead of its root?",
    parts=at_scales(_head_scales),
    judge=CurveJudge(
        title="Figure E.6: attention scale",
        reference="1/sqrt(head_dim)",
        below=("sensitivity", "best_loss"),
        asks=(
            Compare(
                measure="best_loss",
                expected="lower",
                finding="scaling by 1/head_dim gains a little at the smallest size",
                at="the smallest size",
            ),
            Compare(
                measure="best_loss",
                expected="higher",
                finding="scaling by 1/head_dim loses at the largest size",
                at="the largest size",
            ),
        ),
    ),
)


def _spans(scale: Scale) -> dict[str, FigureSweep]:
    return {"qk-span": scale.part(qk_norm_span.VARIANTS)}


FIG_E8 = Figure(
    question="Is qk-layernorm better per head or over the whole width?",
    parts=at_scales(_spans),
    judge=CurveJudge(
        title="Figure E.8: span of qk-layernorm",
        reference="whole width",
        below=("sensitivity", "best_loss"),
        asks=(
            lower("best_loss", "qk-layernorm per head is slightly better than over the width"),
            lower("sensitivity", "qk-layernorm per head is slightly better than over the width"),
        ),
    ),
)


def _pointwise(scale: Scale) -> dict[str, FigureSweep]:
    return {"pointwise": scale.part(pointwise_attention.VARIANTS)}


FIG_E11 = Figure(
    question="Do attention logits become unstable without a softmax, too?",
    parts=at_scales(_pointwise),
    judge=CurveJudge(
        title="Figure E.11: squared-ReLU attention",
        reference="qk-layernorm",
        asks=(
            Compare(
                measure="high_loss",
                expected="higher",
                finding="attention without softmax suffers from growing logits, too, and "
                "qk-layernorm mends it",
            ),
            *GROWS[:1],
        ),
    ),
)
