"""What `--dry-run` prints: the trials and what they cost. Nothing is opened or written."""

from typing import TYPE_CHECKING

from foretune.tuner.config.run import Run
from foretune.tuner.planning.estimates import cost_lines
from foretune.tuner.planning.execution import Execution
from foretune.tuner.planning.forecast_skip import skips
from foretune.tuner.planning.optuna_plan import open_plan
from foretune.tuner.planning.plan import Plan
from foretune.tuner.planning.run_names import name_runs
from foretune.tuner.records.run_json import cost, describe

if TYPE_CHECKING:  # Optuna is loaded where it is asked for.
    from foretune.tuner.planning.optuna_plan import OpenPlan


def print_plan(plan: Plan, execution: Execution) -> int:
    """Prints a plan's trials and their cost; returns the exit code.

    Raises ValueError for what can't run, but for data that isn't there.
    """
    drawn = open_plan(plan)
    if drawn:
        return _print_draws(drawn, execution)
    return _print_runs(plan.runs(check_data=False), execution)


def _print_runs(runs: list[Run], execution: Execution) -> int:
    labels = name_runs(runs)
    records = [describe(run) for run in runs]
    skipped, sentences = skips(records, execution)
    for record in records:
        name, n_params = record.run_id, f"{record.n_params:>12,}"
        mark = "  not to be started" if name in skipped else ""
        print(f"{name}  N {n_params}  {cost(record):8.2e} FLOP  {labels[name]}{mark}")
    for sentence in sentences:
        print(sentence)
    begun = [record.run for record in records if record.run_id not in skipped]
    print("\n".join(cost_lines(begun)) if begun else "0 trials")
    return 0


def _print_draws(drawn: "OpenPlan", execution: Execution) -> int:
    """What can be said of runs that aren't drawn yet."""
    runs, count = drawn.examples(check_data=False), drawn.plan.num_samples
    for sentence in skips([describe(run) for run in runs], execution)[1]:
        print(f"Of random draws: {sentence}")
    print("\n".join(drawn.describe()))
    print(
        f"{count} trials, which Optuna chooses one after another; if they cost what {len(runs)} "
        f"random draws do:"
    )
    print("\n".join(cost_lines(runs, trials=count)))
    return 0
