"""Does depth make training more sensitive to the learning rate than width does, and which buys the
lower loss? (Source A, figure 7 and appendices E.2 and E.3.)

Three ladders, with qk-layernorm on: width (three blocks), depth (width 32), and both together (as
many blocks as heads), x learning rate. The paper found that depth raises sensitivity faster, that
it gives the lower loss at the largest scale, and that both together extrapolate best. Cost of 50
combinations and a seed: at `tiny` (300 steps) two and a half minutes on one core of an AMD Zen 5;
`foretune reproduce fig7 --scale small|paper --dry-run` prints the others.
"""

from ray import tune

from search_spaces.grids import RATES, SIZES

LADDERS = {
    "width": {"model.ladder": "width", "model.size": tune.grid_search(SIZES)},
    "depth": {
        "model.ladder": "depth",
        "model.width": 32,
        "model.size": tune.grid_search([1, 3, 6, 12]),
    },
    "both": {"model.ladder": "joint", "model.size": tune.grid_search(SIZES)},
}
VARIANTS = {name: {"model.ladder": fields["model.ladder"]} for name, fields in LADDERS.items()}
SPACE = [
    {"model.qk_norm": True, **fields, "optimizer.lr": tune.grid_search(RATES)}
    for fields in LADDERS.values()
]
