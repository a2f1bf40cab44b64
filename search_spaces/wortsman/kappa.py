"""How large may attention logits be before a model that is forced to have them learns worse?
(Source A, figure 10.)

q and k are normalised to an RMS of sqrt(kappa), at one size and learning rate. It is a lower bound:
every head is forced, where in natural runs a few grow; and kappa is not the largest logit (the
bound is kappa sqrt(head_dim)), so the achieved ones are recorded. The paper found that loss
deteriorates from about 1e3 in a 10M model and is worse than a bigram model's at 1e4. Cost of 9
combinations and a seed: at `tiny` (300 steps, width 32) 20 seconds on one core of an AMD Zen 5; at
`small` 72 trials, 1.0e16 FLOP; at `paper` 54 trials, 1.8e20 FLOP, 128 H100 hours (`foretune
reproduce fig10 --dry-run`).
"""

from ray import tune

KAPPAS = [0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4]
SPACE = {
    "model.kappa": tune.grid_search(KAPPAS),
    "model.size": 32,
    "optimizer.lr": 1e-2,
}
