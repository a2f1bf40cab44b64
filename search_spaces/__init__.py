"""Search spaces as data: {dotted field of a Run: Ray Tune domain}, a file per question asked.

A space may be a list of such dicts, of which a sweep runs all: so the domains of one field can
depend on the value of another.
"""

from search_spaces import (
    attention_logits,
    batch_size,
    clipping,
    depth_width,
    epsilon,
    head_scale,
    interventions,
    kappa,
    lr,
    mup,
    optimizer,
    pointwise_attention,
    precision,
    qk_norm_span,
    random_lr,
    rms_scaled_lr,
    steps,
    ternary_decay,
    ternary_grid,
    ternary_lm,
    ternary_lr,
    ternary_random,
    ternary_vision,
    ternary_width,
    warmup,
    weight_decay,
    z_loss,
)

SPACES = {
    "lr": lr,
    "random-lr": random_lr,
    "z-loss": z_loss,
    "warmup": warmup,
    "weight-decay": weight_decay,
    "depth-width": depth_width,
    "mup": mup,
    "attention-logits": attention_logits,
    "kappa": kappa,
    "epsilon": epsilon,
    "batch-size": batch_size,
    "steps": steps,
    "clipping": clipping,
    "optimizer": optimizer,
    "precision": precision,
    "qk-norm-span": qk_norm_span,
    "head-scale": head_scale,
    "pointwise-attention": pointwise_attention,
    "rms-scaled-lr": rms_scaled_lr,
    "interventions": interventions,
    "ternary-lm": ternary_lm,
    "ternary-vision": ternary_vision,
    "ternary-lr": ternary_lr,
    "ternary-decay": ternary_decay,
    "ternary-width": ternary_width,
    "ternary-grid": ternary_grid,
    "ternary-random": ternary_random,
}
"""Spaces by name: modules with SPACE, and PRESET where lm-tiny isn't what it is about; the first
paragraph of a docstring is the question."""

__all__ = ["SPACES"]
