"""Claim: in a real sweep forecast stopping saves the steps of unstable trials and keeps the winner.

Eight learning rates x three sizes x qk-layernorm on and off run to their ends; then the same sweep
under forecast stopping (the shipped model, 5 % false stops, no audit), ASHA, median stopping, and
the first two together, each against what the whole sweep showed.

    python -m benchmarks.science.forecast_sweep [--sizes 16 32 64] [--steps 300] [--save]
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from ray import tune

from benchmarks.record import Record
from foretune.analysis import load
from foretune.analysis.measures.labels import label_runs
from foretune.tuner.planning.execution import Execution
from foretune.tuner.sweeps.sweep import sweep

RATES = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0]
WAYS = {
    "nothing": Execution(),
    "forecast": Execution(stopper="forecast", audit=0.0),
    "asha": Execution(scheduler="asha"),
    "median": Execution(scheduler="median"),
    "forecast + asha": Execution(stopper="forecast", audit=0.0, scheduler="asha"),
}
MIN_SAVED = 0.60


@dataclass(frozen=True, slots=True)
class Result:
    """One sweep."""

    trials: pd.DataFrame
    """Indexed by run_id."""
    telemetry: pd.DataFrame
    wall: float
    """Seconds."""


def run(execution: Execution, sizes: list[int], steps: int) -> Result:
    """Returns what came of the sweep under one way of stopping."""
    space = {
        "optimizer.lr": tune.grid_search(RATES),
        "model.size": tune.grid_search(sizes),
        "model.qk_norm": tune.grid_search([False, True]),
    }
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = sweep(
            space, out=Path(folder) / "sweep", overrides={"steps": steps}, execution=execution
        )
        wall = time.perf_counter() - started
        records = load(result.directory)
    return Result(records.trials.set_index("run_id"), records.telemetry, wall)


def main() -> int:
    parser = argparse.ArgumentParser(description="Forecast stopping in a real sweep.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    record = Record("forecast_sweep")
    results = {
        name: run(execution, arguments.sizes, arguments.steps) for name, execution in WAYS.items()
    }
    whole = results["nothing"]
    labels = label_runs(whole.trials.reset_index(), whole.telemetry)
    rows = [row(name, result, whole, labels) for name, result in results.items()]
    record.say(f"{len(labels)} trials, {int(labels['unstable'].sum())} unstable in the end\n")
    record.say(pd.DataFrame(rows).to_string(index=False))
    ours = results["forecast"].trials
    stopped = ours.index[ours["outcome"].eq("stopped")]
    own = labels.loc[stopped]
    between = ~own["unstable"] & ~own["healthy"]
    record.say(
        f"\nstopped by the forecast: {len(stopped)}, of which {int(own['unstable'].sum())} of the "
        f"{int(labels['unstable'].sum())} unstable, {int(own['healthy'].sum())} of the "
        f"{int(labels['healthy'].sum())} healthy, {int(between.sum())} in between"
    )
    saved = share_saved(results["forecast"], whole, labels.index[labels["unstable"]])
    record.claim(
        f"steps of unstable trials saved {saved:.0%} >= {MIN_SAVED:.0%}", saved >= MIN_SAVED
    )
    record.claim("no healthy trial was stopped", not own["healthy"].any())
    same = all(
        winners(results["forecast"], size) == winners(whole, size) for size in arguments.sizes
    )
    record.claim("the best configuration of every size is that of the whole sweep", same)
    return record.close(save=arguments.save)


def row(name: str, result: Result, whole: Result, labels: pd.DataFrame) -> dict[str, object]:
    """One line of the table."""
    unstable = labels.index[labels["unstable"]]
    sizes = whole.trials["size"].unique()
    kept = sum(winners(result, size) == winners(whole, size) for size in sizes)
    return {
        "stopping": name,
        "steps": f"{result.trials['last_step'].sum():,.0f}",
        "saved": f"{share_saved(result, whole, whole.trials.index):.0%}",
        "saved of unstable": f"{share_saved(result, whole, unstable):.0%}",
        "stopped": int(result.trials["outcome"].eq("stopped").sum()),
        "healthy stopped": int(
            result.trials.loc[labels.index[labels["healthy"]], "outcome"].eq("stopped").sum()
        ),
        "winners kept": f"{kept}/{len(sizes)}",
        "regret, nats": f"{max(regret(result, whole, size) for size in sizes):.3f}",
        "wall, s": f"{result.wall:.0f}",
    }


def share_saved(result: Result, whole: Result, runs: pd.Index) -> float:
    """Returns the share of the steps of some runs that was not trained."""
    return 1 - float(
        result.trials.loc[runs, "last_step"].sum() / whole.trials.loc[runs, "last_step"].sum()
    )


def winners(result: Result, size: float) -> str:
    """Returns the run of a size with the lowest final loss among those that finished."""
    done = result.trials[result.trials["outcome"].eq("finished") & result.trials["size"].eq(size)]
    return str(done["final_val_loss"].idxmin()) if len(done) else ""


def regret(result: Result, whole: Result, size: float) -> float:
    """Returns what the best finished run of a size is worse than the whole sweep's, in nats."""
    own, best = winners(result, size), winners(whole, size)
    losses = whole.trials["final_val_loss"]
    return float(losses[own] - losses[best]) if own else float("inf")


if __name__ == "__main__":
    sys.exit(main())
