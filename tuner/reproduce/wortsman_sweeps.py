"""The sweeps behind source A's figures at one scale: {name of the sweep's directory: sweep}.

Figures that read the same runs name the same sweep, which `foretune reproduce` runs once a folder.
"""

from collections.abc import Mapping
from typing import Any

from ray import tune

from foretune.search_spaces import interventions
from foretune.search_spaces.grids import Variants
from foretune.search_spaces.wortsman import (
    attention_logits,
    batch_size,
    depth_width,
    epsilon,
    head_scale,
    kappa,
    mup,
    pointwise_attention,
    qk_norm_span,
    rms_scaled_lr,
    steps,
    warmup,
    weight_decay,
    z_loss,
)
from foretune.tuner.config.apply import changed_fields, intervene
from foretune.tuner.config.interventions import INTERVENTIONS
from foretune.tuner.config.override import dotted
from foretune.tuner.config.resolve import resolve
from foretune.tuner.reproduce.spec import DIGITS, Part
from foretune.tuner.reproduce.wortsman_scales import Scale

DETAIL = {"telemetry_every": 5, "telemetry_detail": True}
"""Telemetry of sweeps whose figures show layers or traces; at `paper` every hundredth step."""


def _detail(scale: Scale) -> dict[str, Any]:
    return {**DETAIL, "telemetry_every": max(5, scale.steps // 1000)}


def logits(scale: Scale) -> dict[str, Part]:
    """Size x learning rate x qk-layernorm, with full telemetry.

    Figures 1, 2, 9, 11, 13, C1, E1, E12, E13, and in part E14.
    """
    part = scale.part(attention_logits.VARIANTS, sizes=scale.law_sizes, **_detail(scale))
    return {"logits": part}


def outputs(scale: Scale) -> dict[str, Part]:
    """z-loss x decay: figures 3 and 4."""
    return {"outputs": scale.part(z_loss.VARIANTS, **_detail(scale))}


def warmups(scale: Scale) -> dict[str, Part]:
    """Lengths of warm-up: figure 5."""
    return {"warmup": scale.part(warmup.variants(scale.steps))}


def decay_forms(scale: Scale) -> dict[str, Part]:
    """Independent and coupled decay: figure 6."""
    return {"decay-forms": scale.part(weight_decay.FORMS)}


def decay_values(scale: Scale) -> dict[str, Part]:
    """How much independent decay: E10."""
    return {"decay-values": scale.part(weight_decay.VALUES, sizes=scale.few_sizes)}


def ladders(scale: Scale, *, qk_norm: bool) -> dict[str, Part]:
    """Width, depth and both: figure 7, E2 and E3."""
    space = depth_width.ladders(
        sizes=scale.sizes,
        width=scale.few_sizes[0],
        depths=scale.depths,
        rates=scale.rates,
        qk_norm=qk_norm,
    )
    return {"ladders" if qk_norm else "ladders-bare": scale.of(space, depth_width.VARIANTS)}


def parametrizations(scale: Scale, *, qk_norm: bool) -> dict[str, Part]:
    """muP: figure 8, E4 and E5."""
    variants = mup.variants(scale.sizes[0], qk_norm=qk_norm)
    return {"mup" if qk_norm else "mup-bare": scale.part(variants, sizes=scale.sizes)}


def epsilons(scale: Scale) -> dict[str, Part]:
    """AdamW's epsilon: figure 12 and E15."""
    return {"epsilon": scale.part(epsilon.VARIANTS, **_detail(scale))}


def more_epsilons(scale: Scale) -> dict[str, Part]:
    """Where epsilon begins to matter: those of figure 12, and some between and beyond."""
    more = scale.part(epsilon.MORE_VARIANTS, **_detail(scale))
    return {**epsilons(scale), "epsilon-more": more}


def head_scales(scale: Scale) -> dict[str, Part]:
    """1/sqrt(head_dim) and 1/head_dim: E6."""
    return {"head-scale": scale.part(head_scale.VARIANTS)}


def lengths(scale: Scale) -> dict[str, Part]:
    """Steps: E7."""
    return {"steps": scale.part(steps.variants(scale.steps), sizes=scale.few_sizes)}


def spans(scale: Scale) -> dict[str, Part]:
    """qk-layernorm per head and over the width: E8."""
    return {"qk-span": scale.part(qk_norm_span.VARIANTS)}


def batches(scale: Scale) -> dict[str, Part]:
    """Batch sizes at equal data: E9."""
    variants = batch_size.variants(scale.batch_size, scale.steps)
    return {"batch": scale.part(variants, sizes=scale.few_sizes)}


def pointwise(scale: Scale) -> dict[str, Part]:
    """Squared-ReLU attention: E11."""
    return {"pointwise": scale.part(pointwise_attention.VARIANTS)}


def rms_scaled(scale: Scale) -> dict[str, Part]:
    """Learning rates relative to the RMS of a tensor: E14; the others' are figure 1's."""
    rates = rms_scaled_lr.RATES
    return {"rms-lr": scale.part(rms_scaled_lr.SCALED, rates=rates), **logits(scale)}


def kappas(scale: Scale) -> dict[str, Part]:
    """Forced logits, per architecture, head dimension and context: figure 10."""
    plain = {
        "model.qk_norm": False,  # The paper's preset has it on.
        "model.head_dim": scale.head_dim,
        "model.max_positions": scale.sequence_length,
        "model.norm": "layernorm",
        "model.mlp": "gelu",
        "data.sequence_length": scale.sequence_length,
    }
    lm = {"LM": plain}
    for dim in (scale.head_dim // 2, 2 * scale.head_dim):
        lm[f"LM, head_dim {dim}"] = plain | {"model.head_dim": dim}
    for length in (scale.sequence_length // 2, 2 * scale.sequence_length):
        positions = {"model.max_positions": length, "data.sequence_length": length}
        lm[f"LM, context {length}"] = plain | positions
    lm["Llama"] = plain | {"model.norm": "rmsnorm", "model.mlp": "swiglu"}
    parts = {"kappa": _kappa(scale, lm, scale.preset, scale.overrides)}
    if scale.images:
        dims = (scale.head_dim // 2, scale.head_dim)
        vit = {f"ViT, head_dim {dim}": {"model.head_dim": dim} for dim in dims}
        parts["kappa-vit"] = _kappa(scale, vit, scale.images, DIGITS)
    return parts


def _kappa(scale: Scale, variants: Variants, preset: str, overrides: Mapping[str, Any]) -> Part:
    grid = {"model.kappa": tune.grid_search(kappa.KAPPAS), "optimizer.lr": 1e-2}
    own = {path for fields in variants.values() for path in fields}
    fixed = {**DETAIL, "steps": scale.steps, "model.width": scale.few_sizes[0], **overrides}
    return Part(
        space=[{**fields, **grid} for fields in variants.values()],
        preset=preset,
        overrides={path: value for path, value in fixed.items() if path not in own},
        variants=variants,
    )


def every_intervention(scale: Scale) -> dict[str, Part]:
    """Interventions alone and together, at one size."""
    start = {"steps": scale.steps, **scale.overrides}
    base = resolve(scale.preset, size=scale.few_sizes[0], overrides=start)
    before = dotted(base)
    compared: dict[str, dict[str, Any]] = {interventions.NONE: {}}
    for names in (*INTERVENTIONS, *interventions.TOGETHER):
        after = dotted(intervene(base, names.split("+")))
        compared[names] = {field: after[field] for field in changed_fields(before, after)}
    space = {
        **interventions.SPACE,
        "intervention": tune.grid_search(list(compared)),
        "model.size": scale.few_sizes[0],
        "optimizer.lr": tune.grid_search(list(scale.rates)),
    }
    return {"interventions": scale.of(space, compared)}
