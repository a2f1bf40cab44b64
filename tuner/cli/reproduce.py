"""`foretune reproduce`: a figure or claim of a source, from its sweeps to its verdicts."""

from dataclasses import asdict
from typing import Literal

from tyro.conf import OmitArgPrefixes, Positional

from foretune.tuner.cli.arguments import Assignments, command_line
from foretune.tuner.planning.execution import Execution, Resources


def reproduce(
    figures: Positional[tuple[str, ...]],
    /,
    *,
    out: str,
    scale: Literal["tiny", "small", "paper"] = "tiny",
    seeds: int = 3,
    overrides: Assignments = (),
    dry_run: bool = False,
    resources: OmitArgPrefixes[Resources],
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
        dry_run: only print the trials and what they cost, without opening the data.
    """
    from foretune.tuner.config.assignments import parse_assignments
    from foretune.tuner.records.files import local_path
    from foretune.tuner.reproduce.run import reproduce as run

    return run(
        figures,
        out=local_path("out", out),
        scale=scale,
        seeds=seeds,
        overrides=parse_assignments(overrides),
        execution=Execution(**asdict(resources)),
        dry_run=dry_run,
        command=command_line(),
    )
