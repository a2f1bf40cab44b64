"""How does the largest attention logit grow with size and learning rate, and can its growth be
forecast? (Source A, figure 9; figures 2, 11, 13, C.1 and E.1 read the same runs.)

Size x learning rate without and with qk-layernorm, four sizes, so that laws can be fitted to three
and held against the fourth. The paper fits a quadratic per learning rate and forecast one
divergence at 4.8B parameters. Cost of 40 combinations and a seed: at `tiny` (300 steps, widths
16-64) a minute and a half on one core of an AMD Zen 5; at `small` 48 trials, 3.4e16 FLOP; at
`paper` 98 trials, 7.6e21 FLOP, 5,369 H100 hours (`foretune reproduce fig9 --dry-run`).
"""

from foretune.search_spaces.grids import cross

VARIANTS = {
    "without qk-layernorm": {"model.qk_norm": False},
    "qk-layernorm": {"model.qk_norm": True},
}
SIZES = [16, 32, 48, 64]
SPACE = cross(VARIANTS, sizes=SIZES)
