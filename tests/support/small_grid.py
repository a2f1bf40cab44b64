"""A space of six runs, and the runs that a plan makes of a space."""

from ray import tune

from foretune.tuner.planning.plan import Plan

STEPS = {"steps": 20}
GRID = {
    "optimizer.lr": tune.grid_search([1e-2, 3e-2, 1e-1]),
    "model.qk_norm": tune.grid_search([False, True]),
    "model.size": tune.grid_search([16]),
}


def plan(space, **how):
    return Plan(space, **how).runs()
