"""Commands that train: their arguments, and what they are called with.

They import what they need themselves, so that `--help` answers at once.
"""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from foretune.tuner.config.assignments import parse_assignments, parse_grids

Assignments = Annotated[tuple[str, ...], arg(name="set", metavar="FIELD=VALUE")]
Interventions = Annotated[tuple[str, ...], arg(name="intervention", metavar="NAME")]


def train(
    preset: Positional[str],
    /,
    *,
    out: str,
    interventions: Interventions = (),
    overrides: Assignments = (),
    size: int | None = None,
    stopper: Literal["none", "forecast"] = "none",
    false_stops: float = 0.05,
    audit: float = 0.05,
    device: str = "auto",
    threads: int = 1,
) -> int:
    """One run, without Ray: writes OUT/runs/<id>/ and prints progress.

    A run that is already there goes on from its checkpoint; a finished one is refused. Once it has
    finished, its weights are in checkpoint/model.pt, for `foretune export`.

    Args:
        preset: name of a preset (`foretune list presets`) or FILE.py:NAME.
        out: directory for the run's records.
        interventions: named changes, applied from left to right (`foretune list interventions`).
        overrides: fields to set, like optimizer.lr=1e-3 (steps and warm-up in updates, batch_size
            in sequences, data.sequence_length in tokens).
        size: rung of the ladder; for transformers the width, or what model.ladder says.
        stopper: none runs to the end; forecast ends the run where it is forecast to be unstable.
        false_stops: share of healthy runs that the forecast may stop: one it is calibrated for.
        audit: share of such runs that go on to their end, to check the forecast.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads.
    """
    from foretune.tuner.cli.train import train_one
    from foretune.tuner.planning.execution import Execution
    from foretune.tuner.records.files import local_path

    return train_one(
        preset,
        out=local_path("--out", out),
        interventions=interventions,
        overrides=overrides,
        size=size,
        execution=Execution(stopper=stopper, false_stops=false_stops, audit=audit),
        device=device,
        threads=threads,
        command=_command(),
    )


def sweep(
    space: Positional[str],
    /,
    *,
    out: str,
    preset: str = "",
    sizes: tuple[int, ...] = (),
    grids: Annotated[tuple[str, ...], arg(name="grid", metavar="FIELD=V1,V2")] = (),
    drop: Annotated[tuple[str, ...], arg(metavar="FIELD")] = (),
    interventions: Interventions = (),
    overrides: Assignments = (),
    search: Literal["grid", "random", "optuna"] = "grid",
    num_samples: int = 1,
    seeds: int = 1,
    seed: int = 0,
    scheduler: Literal["none", "asha", "median", "pbt"] = "none",
    grace_steps: int = 0,
    reduction_factor: float = 2.0,
    stopper: Literal["none", "forecast"] = "none",
    false_stops: float = 0.05,
    audit: float = 0.05,
    skip_above: float = 1.0,
    skip_from: str = "",
    max_concurrent: int = 0,
    cpus_per_trial: float = 1.0,
    gpus_per_trial: float = 0.0,
    checkpoint_seconds: float = 10.0,
    keep_models: bool = False,
    address: str = "",
    tracking_uri: str = "",
    experiment: str = "foretune",
    dry_run: bool = False,
) -> int:
    """A sweep on Ray Tune: prints live progress, ends with the LR-sensitivity table.

    Args:
        space: name of a search space (`foretune list spaces`) or FILE.py[:NAME].
        out: new directory for the sweep's records, on a file system that every node sees.
        preset: name of a preset (`foretune list presets`) or FILE.py:NAME; empty is the space's
            own (`foretune list spaces`), else lm-tiny.
        sizes: rungs of the ladder instead of the space's own; for transformers the width, or with
            --set model.ladder=depth the blocks, with joint the width, with as many blocks as heads.
        grids: values to try for a field, like optimizer.lr=1e-3,1e-2.
        drop: fields of the space to leave as the preset has them.
        interventions: named changes to every run (`foretune list interventions`).
        overrides: fields to set in every run, like steps=400.
        search: grid tries all combinations; random draws num-samples of each part of the space;
            optuna chooses num-samples one after another, by how the earlier ones ended.
        num_samples: draws (for grid: repetitions of each combination).
        seeds: seeds of every combination, from `seed` on (not for optuna).
        seed: first seed, and the seed of random draws.
        scheduler: none runs every trial to its end; asha stops the worse ones of each size early,
            median those that are worse than the median of their size; pbt is refused.
        grace_steps: updates before a scheduler may stop a trial; 0 means the first validation.
        reduction_factor: asha keeps one in this many at each rung.
        stopper: none, or forecast: ends trials that are forecast to be unstable in the end.
        false_stops: share of healthy trials that the forecast may stop: one it is calibrated for.
        audit: share of the trials to be stopped that run to their end, to check the forecast.
        skip_above: probability of instability above which a trial isn't started; 1 starts all.
            optuna draws another in its place.
        skip_from: directory of an ended sweep, whose law across sizes gives that probability.
        max_concurrent: trials at once; 0 means as many as fit.
        cpus_per_trial: CPUs, and threads, of a trial.
        gpus_per_trial: GPUs of a trial; 0 trains on the CPU.
        checkpoint_seconds: least seconds between a trial's checkpoints.
        keep_models: keep the final weights of finished runs, for `foretune export`; costs 4 bytes a
            parameter and run.
        address: Ray cluster to join, auto or HOST:PORT; empty starts one on this machine.
        tracking_uri: MLflow store; empty is mlflow.db in OUT.
        experiment: MLflow experiment.
        dry_run: only print the trials and what they cost, without opening the data.
    """
    from foretune.tuner.cli.sweep import sweep_command
    from foretune.tuner.planning.execution import Execution
    from foretune.tuner.planning.plan import Plan
    from foretune.tuner.planning.spaces import named_preset, named_space, narrow
    from foretune.tuner.records.files import local_path

    directory = local_path("--out", out)
    fixed, new = parse_assignments(overrides), parse_grids(grids)
    plan = Plan(
        narrow(named_space(space), sizes=sizes, grids=new, drop=drop, fixed=fixed),
        name=space,
        preset=preset or named_preset(space),
        search=search,
        num_samples=num_samples,
        seeds=seeds,
        seed=seed,
        interventions=interventions,
        overrides=fixed,
        grids=tuple(new),
    )
    execution = Execution(
        scheduler=scheduler,
        grace_steps=grace_steps,
        reduction_factor=reduction_factor,
        stopper=stopper,
        false_stops=false_stops,
        audit=audit,
        skip_above=skip_above,
        skip_from=str(Path(skip_from).resolve()) if skip_from else "",
        max_concurrent=max_concurrent,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        checkpoint_seconds=checkpoint_seconds,
        keep_models=keep_models,
        address=address,
        tracking_uri=tracking_uri,
        experiment=experiment,
    )
    return sweep_command(
        plan, out=directory, execution=execution, dry_run=dry_run, command=_command()
    )


def resume(directory: Positional[str], /, *, address: str = "") -> int:
    """Continues an interrupted sweep: trials with an outcome are kept, the rest go on.

    Args:
        directory: the sweep's directory.
        address: Ray cluster to join instead of the sweep's own, auto or HOST:PORT.
    """
    from foretune.tuner.cli.sweep import resume_command

    return resume_command(Path(directory), address=address)


def _command() -> str:
    return shlex.join(["foretune", *sys.argv[1:]])


def reproduce(
    figures: Positional[tuple[str, ...]],
    /,
    *,
    out: str,
    scale: Literal["tiny", "small", "paper"] = "tiny",
    seeds: int = 3,
    overrides: Assignments = (),
    max_concurrent: int = 0,
    cpus_per_trial: float = 1.0,
    gpus_per_trial: float = 0.0,
    address: str = "",
    tracking_uri: str = "",
    dry_run: bool = False,
) -> int:
    """Runs the sweeps of a figure or claim of a source, prints its verdicts, draws it.

    Sweeps in OUT go on where they stopped, so the same command continues an interrupted one, and
    one with more seeds adds these to what is there.

    Args:
        figures: what to reproduce (`foretune list figures`); those that read the same runs share
            them.
        out: directory for sweeps, tables and figures.
        scale: tiny takes minutes on two CPU cores; small wants a GPU; paper is the source's own
            setting where it is public.
        seeds: seeds of every combination.
        overrides: fields to set in every run, like steps=600.
        max_concurrent: trials at once; 0 means as many as fit.
        cpus_per_trial: CPUs, and threads, of a trial.
        gpus_per_trial: GPUs of a trial; 0 trains on the CPU.
        address: Ray cluster to join, auto or HOST:PORT; empty starts one on this machine.
        tracking_uri: MLflow store; empty is mlflow.db in each sweep's directory.
        dry_run: only print the trials and what they cost, without opening the data.
    """
    from foretune.tuner.planning.execution import Execution
    from foretune.tuner.records.files import local_path
    from foretune.tuner.reproduce.run import reproduce as run

    return run(
        figures,
        out=local_path("--out", out),
        scale=scale,
        seeds=seeds,
        overrides=parse_assignments(overrides),
        execution=Execution(
            max_concurrent=max_concurrent,
            cpus_per_trial=cpus_per_trial,
            gpus_per_trial=gpus_per_trial,
            address=address,
            tracking_uri=tracking_uri,
        ),
        dry_run=dry_run,
        command=_command(),
    )
