"""Does bfloat16 make training less stable than float32? (Beyond source A, which trained in bfloat16
throughout.)

Precision x qk-layernorm x size x learning rate. Cost of 60 combinations and a seed: at `tiny`
(widths 16-64) four minutes on one core of an AMD Zen 5, where bfloat16 is the slower one; at
`small` 96 trials, 6.7e16 FLOP; at `paper` 196 trials, 1.5e22 FLOP, 10,737 H100 hours, on source A's
ladders of `foretune reproduce`.
"""

from foretune.search_spaces.grids import cross

VARIANTS = {
    f"{precision}{', qk-layernorm' if qk_norm else ''}": {
        "precision": precision,
        "model.qk_norm": qk_norm,
    }
    for precision in ("float32", "bfloat16")
    for qk_norm in (False, True)
}
SPACE = cross(VARIANTS)
