"""Which way of clipping gradients or updates helps against instability? (Beyond source A, which
never varied its global norm of 1.)

Global norm, none, per tensor by weight norm (AGC) or by running mean (AdaGC), by z-score (ZClip),
and StableAdamW's update clipping, without qk-layernorm, x size x learning rate. Cost of 90
combinations and a seed: at `tiny` (widths 16-64) three minutes on one core of an AMD Zen 5; at
`small` 144 trials, 1.0e17 FLOP; at `paper` 294 trials, 2.3e22 FLOP, 16,106 H100 hours, on source
A's ladders of `foretune reproduce`.
"""

from foretune.search_spaces.grids import cross

VARIANTS = {
    "norm 1": {"optimizer.clip_norm": 1.0},
    "none": {"optimizer.clip_norm": 0.0},
    "agc 0.1": {"optimizer.clip_norm": 0.0, "optimizer.agc": 0.1},
    "adagc 1.05": {"optimizer.clip_norm": 0.0, "optimizer.adagc": 1.05},
    "zclip 2.5": {"optimizer.clip_norm": 0.0, "optimizer.zclip": 2.5},
    "update clipping": {"optimizer.clip_norm": 1.0, "optimizer.update_clip": 1.0},
}
SPACE = cross(VARIANTS)
