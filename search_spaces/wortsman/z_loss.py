"""Do the output logits drift away without a z-loss or weight decay, and what do these two mend?
(Source A, figures 3 and 4.)

z-loss x weight decay, with qk-layernorm on, x size x learning rate. The paper found the
output-logit divergence at every scale without decay, late in training; z-loss mends it, and decay
does for larger models. Cost of 60 combinations and a seed: at `tiny` (300 steps, widths 16-64) two
minutes on one core of an AMD Zen 5; at `small` 96 trials, 6.7e16 FLOP; at `paper` 196 trials,
1.5e22 FLOP, 10,737 H100 hours (`foretune reproduce fig3 --dry-run`).
"""

from foretune.search_spaces.grids import cross

VARIANTS = {
    "neither": {"loss.z_loss": 0.0, "optimizer.weight_decay": 0.0, "model.qk_norm": True},
    "decay 1e-4": {"loss.z_loss": 0.0, "optimizer.weight_decay": 1e-4, "model.qk_norm": True},
    "z-loss 1e-4": {"loss.z_loss": 1e-4, "optimizer.weight_decay": 0.0, "model.qk_norm": True},
    "both": {"loss.z_loss": 1e-4, "optimizer.weight_decay": 1e-4, "model.qk_norm": True},
}
SPACE = cross(VARIANTS)
