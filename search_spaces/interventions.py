"""Which interventions make training less sensitive to the learning rate, alone and together, and at
what cost in loss? (Source A's stabilisers and those that came after, on one model, data and
budget.)

Intervention x learning rate, at one size. Cost of 275 combinations and a seed: at `tiny` (300
steps, width 32) seven minutes on one core of an AMD Zen 5; at `small` 330 trials, 5.3e16 FLOP
(`foretune reproduce interventions --dry-run`).
"""

from ray import tune

from foretune.search_spaces.grids import RATES

NONE = "none"
"""The preset as it is: pre-LayerNorm, warm-up 5 %, independent decay 1e-4, clipping at norm 1."""
EACH = "each"
"""Every intervention by itself: `tuner.planning.spaces` puts their names here."""
TOGETHER = [
    "qk-layernorm+long-warmup",
    "qk-layernorm+z-loss",
    "qk-layernorm+mup-simple",
    "qk-layernorm+mup-full",
    "qk-layernorm+reordered-norm",
    "qk-layernorm+update-clipping",
    "qk-layernorm+linear-schedule",
    "qk-layernorm+long-warmup+reordered-norm",
    "qk-layernorm+long-warmup+mup-simple",
    "qkv-norm+long-warmup",
    "qkv-norm+reordered-norm",
    "qk-layernorm+muon",
    "qk-layernorm+long-warmup+muon",
    "qk-clip+long-warmup",
]
SPACE = {
    "intervention": tune.grid_search([NONE, EACH, *TOGETHER]),
    "model.size": 64,
    "optimizer.lr": tune.grid_search(RATES),
}
