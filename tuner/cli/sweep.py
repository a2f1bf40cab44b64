"""`foretune sweep`: runs (or only costs) the trials of a space."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from foretune.tuner.cli.arguments import Assignments, Interventions, command_line
from foretune.tuner.planning.execution import Execution, ExecutionFields
from foretune.tuner.planning.sampling import Sampling

if TYPE_CHECKING:
    from foretune.tuner.planning.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What is changed in the space, and in every run."""

    preset: str = ""
    """Name of a preset (`foretune list presets`) or FILE.py:NAME;
    empty is the space's own (`foretune list spaces`), else lm-tiny."""
    sizes: tuple[int, ...] = ()
    """Rungs of the ladder instead of the space's own; for transformers the width,
    or with --set model.ladder=depth the blocks,
    with joint the width, with as many blocks as heads."""
    grids: Annotated[tuple[str, ...], arg(name="grid", metavar="FIELD=V1,V2")] = ()
    """Values to try for a field, like optimizer.lr=1e-3,1e-2."""
    drop: Annotated[tuple[str, ...], arg(metavar="FIELD")] = ()
    """Fields of the space to leave as the preset has them."""
    interventions: Interventions = ()
    """Named changes to every run (`foretune list interventions`)."""
    overrides: Assignments = ()
    """Fields to set in every run, like steps=400."""


def sweep(
    space: Positional[str],
    /,
    *,
    out: str,
    dry_run: bool = False,
    changes: OmitArgPrefixes[Changes],
    sampling: OmitArgPrefixes[Sampling],
    execution: OmitArgPrefixes[ExecutionFields],
) -> int:
    """A sweep on Ray Tune: prints live progress, ends with the LR-sensitivity table.

    Args:
        space: name of a search space (`foretune list spaces`) or FILE.py[:NAME].
        out: new directory for the sweep's records, on a file system that every node sees.
        dry_run: only print the trials and what they cost, without opening the data.
    """
    from foretune.tuner.records.files import local_path

    directory = local_path("out", out)
    if execution.skip_from:
        execution = replace(execution, skip_from=str(Path(execution.skip_from).resolve()))
    how = Execution(**asdict(execution))
    if dry_run:
        from foretune.tuner.planning.dry_run import print_plan
        from foretune.tuner.sweeps.schedulers import named_scheduler

        named_scheduler(how.scheduler)
        return print_plan(_plan(space, changes, sampling), how)
    print(f"foretune sweep {space} -> {directory}", flush=True)  # Ray and torch take seconds.
    plan = _plan(space, changes, sampling)
    from foretune.tuner.cli.end_table import finish
    from foretune.tuner.sweeps.sweep import sweep_plan

    return finish(sweep_plan(plan, out=directory, execution=how, command=command_line()))


def _plan(space: str, changes: Changes, sampling: Sampling) -> "Plan":
    from foretune.tuner.config.assignments import parse_assignments, parse_grids
    from foretune.tuner.planning.plan import Plan
    from foretune.tuner.planning.spaces import named_preset, named_space, narrow

    fixed, new = parse_assignments(changes.overrides), parse_grids(changes.grids)
    return Plan(
        narrow(named_space(space), sizes=changes.sizes, grids=new, drop=changes.drop, fixed=fixed),
        name=space,
        preset=changes.preset or named_preset(space),
        interventions=changes.interventions,
        overrides=fixed,
        grids=tuple(new),
        **asdict(sampling),
    )
