"""At which learning rate does training become unstable, how does that move with size, and does
qk-layernorm mend it? (Source A: Wortsman et al. 2023, figure 1.)

Learning rate x size x qk-layernorm. The grid starts at 3e-3: in runs of a few hundred steps the
lower end of the paper's grid (3e-4, 1e-3) measures undertraining, not stability. Cost at 200 steps
on one core of an AMD Zen 5: 30 trials at widths 16-64 take about 35 seconds, 10 trials at width
128 about 45. The paper found that the LR at which runs diverge falls as N grows without
qk-layernorm, and that 1.2B parameters train at LR 0.3 with it.
"""

from ray import tune

SPACE = {
    "optimizer.lr": tune.grid_search([3e-3, 1e-2, 3e-2, 1e-1, 3e-1]),
    "model.qk_norm": tune.grid_search([False, True]),
    "model.size": tune.grid_search([16, 32, 64]),
}
