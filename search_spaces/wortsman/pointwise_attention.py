"""Do attention logits become unstable without a softmax, too? (Source A, appendix E.11.)

Squared-ReLU attention with and without qk-layernorm x size x learning rate. The paper found the
same instability, so it isn't the softmax's. Cost of 30 combinations and a seed: at `tiny` (widths
16-64) a minute and a half on one core of an AMD Zen 5; at `small` 48 trials, 3.4e16 FLOP; at
`paper` 98 trials, 7.6e21 FLOP, 5,369 H100 hours (`foretune reproduce figE11 --dry-run`).
"""

from foretune.search_spaces.grids import cross

VARIANTS = {
    "without qk-layernorm": {"model.attention": "relu2", "model.qk_norm": False},
    "qk-layernorm": {"model.attention": "relu2", "model.qk_norm": True},
}
SPACE = cross(VARIANTS)
