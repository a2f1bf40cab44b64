"""Should attention logits be divided by head_dim instead of its root? (Source A, appendix E.6.)

Scale, with qk-layernorm on, x size x learning rate. The paper found a small gain at the smallest
size, a loss at the largest, and no substitute for qk-layernorm. Cost of 30 combinations and a seed:
at `tiny` (widths 16-64) a minute on one core of an AMD Zen 5; at `small` 48 trials, 3.4e16 FLOP; at
`paper` 98 trials, 7.6e21 FLOP, 5,369 H100 hours (`foretune reproduce figE6 --dry-run`).
"""

from foretune.search_spaces.grids import cross

VARIANTS = {
    "1/sqrt(head_dim)": {"model.attention_scale": "sqrt", "model.qk_norm": True},
    "1/head_dim": {"model.attention_scale": "linear", "model.qk_norm": True},
}
WITHOUT = {name: {**fields, "model.qk_norm": False} for name, fields in VARIANTS.items()}
SPACE = cross(VARIANTS)
