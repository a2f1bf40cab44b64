"""Does a learning rate relative to each tensor's RMS hold the best rate still? (Source A, appendix
E.14.)

Adafactor's scaling, with qk-layernorm on, x size x learning rate. The learning rate means another
thing then, so its sensitivity can't be compared with AdamW's, and its grid is another. The paper
found a steadier best rate. Cost of 18 combinations and a seed: at `tiny` (widths 16-64) 40 seconds
on one core of an AMD Zen 5; at `small` 72 trials, 5.0e16 FLOP; at `paper` 140 trials, 1.1e22 FLOP,
7,669 H100 hours (`foretune reproduce figE14 --dry-run`).
"""

from foretune.search_spaces.grids import cross

RATES = [1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0]
VARIANTS = {
    "learning rate": {"optimizer.lr_scale": "none", "model.qk_norm": True},
    "learning rate x RMS": {"optimizer.lr_scale": "rms", "model.qk_norm": True},
}
SCALED = {"learning rate x RMS": VARIANTS["learning rate x RMS"]}
SPACE = cross(SCALED, rates=RATES)
