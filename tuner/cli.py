"""The command `foretune`; `python -m tuner` is the same.

Commands import what they need themselves, so that `--help` and `list` answer at once. Exit codes:
0 done; 2 bad arguments, in one sentence; 3 some trials failed for a reason other than divergence;
130 interrupted.
"""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

DESCRIPTION = """Hyperparameter tuning that sees divergence coming.

Exit codes: 0 done; 2 bad arguments; 3 some trials failed for a reason other than divergence; 130
interrupted."""

MANY = ("--set", "--grid", "--intervention", "--sizes", "--check", "--drop")
"""Options that take several values, in one go or repeated."""

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
    device: str = "auto",
    threads: int = 1,
) -> int:
    """One run, without Ray: writes OUT/runs/<id>/ and prints progress.

    A run that is already there goes on from its checkpoint; a finished one is refused.

    Args:
        preset: name of a preset (`foretune list presets`) or FILE.py:NAME.
        out: directory for the run's records.
        interventions: named changes, applied from left to right (`foretune list interventions`).
        overrides: fields to set, like optimizer.lr=1e-3 (steps and warm-up in updates, batch_size
            in sequences, data.sequence_length in tokens).
        size: rung of the ladder; for transformers the width.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads.
    """
    from tuner.single import train_one

    return train_one(
        preset,
        out=Path(out),
        interventions=interventions,
        overrides=overrides,
        size=size,
        device=device,
        threads=threads,
        command=_command(),
    )


def sweep(
    space: Positional[str],
    /,
    *,
    out: str,
    preset: str = "lm-tiny",
    sizes: tuple[int, ...] = (),
    grids: Annotated[tuple[str, ...], arg(name="grid", metavar="FIELD=V1,V2")] = (),
    drop: Annotated[tuple[str, ...], arg(metavar="FIELD")] = (),
    interventions: Interventions = (),
    overrides: Assignments = (),
    search: Literal["grid", "random"] = "grid",
    num_samples: int = 1,
    seeds: int = 1,
    seed: int = 0,
    scheduler: Literal["none", "asha"] = "none",
    grace_steps: int = 0,
    reduction_factor: float = 2.0,
    max_concurrent: int = 0,
    cpus_per_trial: float = 1.0,
    gpus_per_trial: float = 0.0,
    checkpoint_seconds: float = 10.0,
    address: str = "",
    tracking_uri: str = "",
    experiment: str = "foretune",
    dry_run: bool = False,
) -> int:
    """A sweep on Ray Tune: prints live progress, ends with the LR-sensitivity table.

    Args:
        space: name of a search space (`foretune list spaces`) or FILE.py[:NAME].
        out: new directory for the sweep's records, on a file system that every node sees.
        preset: name of a preset (`foretune list presets`) or FILE.py:NAME.
        sizes: rungs of the ladder instead of the space's own; for transformers the width.
        grids: values to try for a field, like optimizer.lr=1e-3,1e-2.
        drop: fields of the space to leave as the preset has them.
        interventions: named changes to every run (`foretune list interventions`).
        overrides: fields to set in every run, like steps=400.
        search: grid tries all combinations; random draws num-samples.
        num_samples: draws (for grid: repetitions of each combination).
        seeds: seeds of every combination, from `seed` on.
        seed: first seed, and the seed of random draws.
        scheduler: none runs every trial to its end; asha stops the worse ones of each size early.
        grace_steps: updates before asha may stop a trial; 0 means the first validation.
        reduction_factor: asha keeps one in this many at each rung.
        max_concurrent: trials at once; 0 means as many as fit.
        cpus_per_trial: CPUs, and threads, of a trial.
        gpus_per_trial: GPUs of a trial; 0 trains on the CPU.
        checkpoint_seconds: least seconds between a trial's checkpoints.
        address: Ray cluster to join, auto or HOST:PORT; empty starts one on this machine.
        tracking_uri: MLflow store; empty is mlflow.db in OUT.
        experiment: MLflow experiment.
        dry_run: only print the trials and what they cost.
    """
    from tuner.commands import sweep_command
    from tuner.execution import Execution

    execution = Execution(
        scheduler=scheduler,
        grace_steps=grace_steps,
        reduction_factor=reduction_factor,
        max_concurrent=max_concurrent,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        checkpoint_seconds=checkpoint_seconds,
        address=address,
        tracking_uri=tracking_uri,
        experiment=experiment,
    )
    return sweep_command(
        space,
        out=Path(out),
        preset=preset,
        sizes=sizes,
        grids=grids,
        drop=drop,
        interventions=interventions,
        overrides=overrides,
        search=search,
        num_samples=num_samples,
        seeds=seeds,
        seed=seed,
        execution=execution,
        dry_run=dry_run,
        command=_command(),
    )


def resume(directory: Positional[str], /, *, address: str = "") -> int:
    """Continues an interrupted sweep: trials with an outcome are kept, the rest go on.

    Args:
        directory: the sweep's directory.
        address: Ray cluster to join instead of the sweep's own, auto or HOST:PORT.
    """
    from tuner.commands import resume_command

    return resume_command(Path(directory), address=address)


def collect(directory: Positional[str], /) -> int:
    """Rebuilds trials.parquet and telemetry.parquet from the runs of a sweep.

    Args:
        directory: the sweep's directory.
    """
    from tuner.commands import collect_command

    return collect_command(Path(directory))


def report(
    directory: Positional[str],
    /,
    *,
    checks: Annotated[tuple[str, ...], arg(name="check", metavar="PREDICTION.json:DIR")] = (),
) -> int:
    """Writes DIR/report/index.html with figures and tables, and prints the verdict.

    Args:
        directory: the sweep's directory.
        checks: predictions to hold against sweeps at the size that they speak of.
    """
    from tuner.commands import report_command

    return report_command(Path(directory), checks=checks)


def predict(
    directory: Positional[str],
    /,
    *,
    size: int,
    lr: float | None = None,
    threshold: str = "100",
    level: float = 0.9,
    json: bool = False,
    save: str = "",
) -> int:
    """The critical LR at a size never run, with interval and horizon; stable or not at an LR.

    Args:
        directory: the sweep's directory.
        size: rung of the ladder to predict; for transformers the width.
        lr: learning rate to judge at that size.
        threshold: largest attention logit that counts as danger (a number, in nats), or auto to
            calibrate it on the sweep's own runs.
        level: coverage of the interval, 0 to 1.
        json: print JSON instead of sentences.
        save: also write the JSON to this new file (a frozen prediction for `report --check`).
    """
    from tuner.commands import predict_command

    return predict_command(
        Path(directory), size=size, lr=lr, threshold=threshold, level=level, json=json, save=save
    )


def sync(directory: Positional[str], /, *, tracking_uri: str = "") -> int:
    """Sends to MLflow what it has not received yet (after its server was away).

    Args:
        directory: the sweep's directory.
        tracking_uri: MLflow store; empty is the one the sweep used.
    """
    from tuner.commands import sync_command

    return sync_command(Path(directory), tracking_uri=tracking_uri)


def _submit(command: list[str]) -> Callable[..., int]:
    def submit(*, address: str = "") -> int:
        """Runs a foretune command as a Ray job: foretune submit [--address URL] -- COMMAND.

        Its output is streamed, its exit code is passed on, Ctrl-C stops it. The checkout in the
        current directory is shipped with it.

        Args:
            address: the head's dashboard, http://HOST:PORT; empty is http://127.0.0.1:8265.
        """
        from tuner.jobs import submit as submit_job

        if not command:
            raise ValueError(
                "submit must be given a command, got none; write it after --, like "
                "foretune submit -- sweep lr --out DIR."
            )
        return submit_job(command, address=address, working_dir=Path.cwd())

    return submit


def list_names(
    what: Positional[Literal["presets", "spaces", "interventions", "models", "datasets"]], /
) -> int:
    """What there is, one line each.

    Args:
        what: which names.
    """
    from tuner.commands import list_command

    return list_command(what)


COMMANDS: dict[str, Callable[..., int]] = {
    "train": train,
    "sweep": sweep,
    "resume": resume,
    "collect": collect,
    "report": report,
    "predict": predict,
    "sync": sync,
    "submit": _submit([]),
    "list": list_names,
}
"""Commands by name."""


def main(argv: list[str] | None = None) -> None:
    """Runs a command and exits with its code."""
    arguments = sys.argv[1:] if argv is None else argv
    commands = COMMANDS
    if arguments[:1] == ["submit"] and "--" in arguments:
        cut = arguments.index("--")
        commands = {**COMMANDS, "submit": _submit(arguments[cut + 1 :])}
        arguments = arguments[:cut]
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            commands, prog="foretune", description=DESCRIPTION, args=gather(arguments)
        )
    except ValueError as error:
        print(f"foretune: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("foretune: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def gather(arguments: list[str]) -> list[str]:
    """Returns the arguments with repeated options of several values joined into one each.

    Otherwise the last `--set` would silently replace the ones before it.
    """
    kept: list[str] = []
    values: dict[str, list[str]] = {}
    option: str | None = None
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            option = name if name in MANY else None
            if option:
                values.setdefault(option, []).extend([value] if equals else [])
                continue
        (values[option] if option else kept).append(argument)
    return kept + [word for name, words in values.items() for word in (name, *words)]


def _command() -> str:
    return shlex.join(["foretune", *sys.argv[1:]])
