"""Search spaces as data: {dotted field of a Run: Ray Tune domain}, a file per question asked.

A space may be a list of such dicts, of which a sweep runs all: so the domains of one field can
depend on the value of another.
"""

from foretune.search_spaces import clipping, interventions, lr, optimizer, precision, random_lr
from foretune.search_spaces.bitnet import decay as bitnet_decay
from foretune.search_spaces.bitnet import grid as bitnet_grid
from foretune.search_spaces.bitnet import lm as bitnet_lm
from foretune.search_spaces.bitnet import lr as bitnet_lr
from foretune.search_spaces.bitnet import random as bitnet_random
from foretune.search_spaces.bitnet import vision as bitnet_vision
from foretune.search_spaces.bitnet import width as bitnet_width
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
    "ternary-lm": bitnet_lm,
    "ternary-vision": bitnet_vision,
    "ternary-lr": bitnet_lr,
    "ternary-decay": bitnet_decay,
    "ternary-width": bitnet_width,
    "ternary-grid": bitnet_grid,
    "ternary-random": bitnet_random,
}
"""Spaces by name: modules with SPACE, and PRESET where lm-tiny isn't what it is about; the first
paragraph of a docstring is the question."""

__all__ = ["SPACES"]
