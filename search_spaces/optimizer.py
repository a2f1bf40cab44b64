"""Are other optimizers less sensitive to the learning rate than AdamW? (Beyond source A.)

AdamW, AdamW without epsilon (atan2) and Muon x qk-layernorm x size x learning rate. Muon's rates
are scaled to AdamW's update RMS, so one grid serves all. Cost of 90 combinations and a seed: at
`tiny` (widths 16-64) five minutes on one core of an AMD Zen 5; at `small` 144 trials, 1.0e17 FLOP;
at `paper` 294 trials, 2.3e22 FLOP, 16,106 H100 hours, on source A's ladders of `foretune
reproduce`.
"""

from foretune.search_spaces.grids import cross

NAMES = ("adamw", "adamw-atan2", "muon")
VARIANTS = {
    f"{name}{', qk-layernorm' if qk_norm else ''}": {
        "optimizer.name": name,
        "model.qk_norm": qk_norm,
    }
    for name in NAMES
    for qk_norm in (False, True)
}
SPACE = cross(VARIANTS)
