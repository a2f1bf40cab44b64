"""Is qk-layernorm better per head or over the whole width? (Source A, appendix E.8.)

Span x size x learning rate. The paper found per head slightly better. Cost of 30 combinations and a
seed: at `tiny` (widths 16-64) a minute on one core of an AMD Zen 5; at `small` 48 trials, 3.4e16
FLOP; at `paper` 98 trials, 7.6e21 FLOP, 5,369 H100 hours (`foretune reproduce figE8 --dry-run`).
"""

from foretune.search_spaces.grids import cross

VARIANTS = {
    "per head": {"model.qk_norm": True, "model.qk_norm_span": "head"},
    "whole width": {"model.qk_norm": True, "model.qk_norm_span": "width"},
}
SPACE = cross(VARIANTS)
