"""Search spaces as data: {dotted field of a Run: Ray Tune domain}, a file per question asked.

A space may be a list of such dicts, of which a sweep runs all: so the domains of one field can
depend on the value of another. A space's module is loaded when it is asked for, since it loads Ray.
"""

from importlib import import_module
from types import ModuleType
from typing import Final

SPACES: Final = {
    "lr": "lr",
    "random-lr": "random_lr",
    "z-loss": "wortsman.z_loss",
    "warmup": "wortsman.warmup",
    "weight-decay": "wortsman.weight_decay",
    "depth-width": "wortsman.depth_width",
    "mup": "wortsman.mup",
    "attention-logits": "wortsman.attention_logits",
    "kappa": "wortsman.kappa",
    "epsilon": "wortsman.epsilon",
    "batch-size": "wortsman.batch_size",
    "steps": "wortsman.steps",
    "clipping": "clipping",
    "optimizer": "optimizer",
    "precision": "precision",
    "qk-norm-span": "wortsman.qk_norm_span",
    "head-scale": "wortsman.head_scale",
    "pointwise-attention": "wortsman.pointwise_attention",
    "rms-scaled-lr": "wortsman.rms_scaled_lr",
    "interventions": "interventions",
    "ternary-lm": "bitnet.lm",
    "ternary-vision": "bitnet.vision",
    "ternary-lr": "bitnet.lr",
    "ternary-decay": "bitnet.decay",
    "ternary-width": "bitnet.width",
    "ternary-grid": "bitnet.grid",
    "ternary-random": "bitnet.random",
}
"""Modules here by their space's name, with SPACE, and PRESET where lm-tiny isn't what it is about;
the first paragraph of a docstring is the question."""


def space_module(name: str) -> ModuleType:
    """Returns the module of a space, one of SPACES."""
    return import_module(f"{__name__}.{SPACES[name]}")


__all__ = ["SPACES", "space_module"]
