"""`foretune coord-check`: whether signals grow with width as theory says; table and picture."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from foretune.argument_error import Argument, ArgumentError, spelled
from foretune.tuner.cli.arguments import Assignments
from foretune.whole_files import atomic_write

if TYPE_CHECKING:
    import pandas as pd

TAKEN = {
    "parametrization.name": "parametrizations",
    "model.width": "widths",
    "model.size": "widths",
    "optimizer.lr": "lr",
    "steps": "steps",
    "seed": "seeds",
}
"""Fields that arguments of the command set."""
IDLE = {
    "optimizer.decay": "without decay",
    "optimizer.decay_on": "without decay",
    "schedule.decay_share": "at a constant rate",
    "schedule.final_lr": "at a constant rate",
}
"""Fields that nothing uses in a coordinate check, and why."""
FILES = ("coords.csv", "slopes.csv", "coords.png")


def coord_check(
    preset: Positional[str] = "lm-tiny",
    /,
    *,
    out: str,
    parametrizations: Annotated[tuple[str, ...], arg(name="parametrization", metavar="NAME")] = (
        "standard",
        "mup-simple",
        "mup-intermediate",
        "mup-full",
    ),
    widths: tuple[int, ...] = (16, 32, 64, 128, 256),
    steps: int = 10,
    lr: float = 1e-2,
    seeds: int = 3,
    overrides: Assignments = (),
) -> int:
    """Whether signals, and their changes in the first steps, grow with width as theory says.

    Trains every width a few steps, without Ray; prints an exponent of the width for each layer
    beside the theory's, with a verdict; writes OUT/coords.csv, slopes.csv and coords.png. The exit
    code is 1 where something isn't as theory says, or can't be told. About a minute on one core.

    Args:
        preset: name of a transformer's preset (`foretune list presets`) or FILE.py:NAME.
        out: directory for the tables and the picture.
        parametrizations: which to check.
        widths: widths to train, multiples of the head dimension.
        steps: updates, at a constant learning rate, without warm-up, clipping and decay.
        lr: learning rate, at parametrization.base_width.
        seeds: seeds of every width; intervals are over them.
        overrides: fields to set in every run, like parametrization.base_width=32.
    """
    import pandas as pd
    import torch

    from foretune.analysis.claims.mup_theory import COLUMNS, fits, judge
    from foretune.models.nets.parametrize import PARAMETRIZATIONS
    from foretune.tuner.config.assignments import parse_assignments
    from foretune.tuner.config.inert import check_effective, without_inert
    from foretune.tuner.config.resolve import resolve_draw
    from foretune.tuner.records.files import local_path
    from foretune.tuner.training.coordinates import coordinates

    folder = local_path("out", out)
    changes = parse_assignments(overrides)
    _check(parametrizations, widths, steps, seeds)
    # The last is one that a base width means something to, if any is.
    name = max(parametrizations, key=list(PARAMETRIZATIONS).index)
    asked = {**changes, "parametrization.name": name}
    paths, run = resolve_draw(preset, overrides=asked, origin={})
    _check_paths(paths - {"parametrization.name"})
    check_effective([(paths, run)])
    run = without_inert(run)
    torch.set_num_threads(1)
    rows = coordinates(
        run,
        parametrizations=parametrizations,
        widths=widths,
        steps=steps,
        lr=lr,
        seeds=seeds,
    )
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    judged = judge(table)
    _write(table, judged, folder)
    print("\n".join(_summary(judged, steps, lr)))
    print(f"coordinates, slopes, picture: {', '.join(str(folder / name) for name in FILES)}")
    return 0 if fits(judged) else 1


def _check_paths(paths: Iterable[str]) -> None:
    from foretune.tuner.training.coordinates import PLAIN

    for path in paths:
        why: tuple[str, ...] = ()
        if path in TAKEN:
            why = ("which ", Argument(TAKEN[path]), " gives")
        elif path in PLAIN:
            why = (f"which is {PLAIN[path]} in a coordinate check",)
        elif path in IDLE:
            why = (f"since a coordinate check is {IDLE[path]}",)
        if why:
            raise ArgumentError(Argument("overrides"), f" must leave {path} out, ", *why, ".")


def _check(
    parametrizations: Sequence[str],
    widths: Sequence[int],
    steps: int,
    seeds: int,
) -> None:
    from foretune.models.nets.parametrize import PARAMETRIZATIONS
    from foretune.tuner.config.assignments import check_distinct
    from foretune.tuner.config.override import near

    for name in parametrizations:
        if name not in PARAMETRIZATIONS:
            raise ArgumentError(
                Argument("parametrizations"),
                f" must be one of {', '.join(PARAMETRIZATIONS)}, got {name!r}."
                f"{near(name, PARAMETRIZATIONS)}",
            )
    for argument, values, least in (
        ("parametrizations", parametrizations, 1),
        ("widths", widths, 2),
    ):
        check_distinct(argument, values)
        if len(values) < least:
            raise ArgumentError(
                Argument(argument), f" must name {least} or more, got {len(values)}."
            )
    for argument, value in (("steps", steps), ("seeds", seeds)):
        if value < 1:
            raise ArgumentError(Argument(argument), f" must be 1 or more, got {value}.")


def _write(table: "pd.DataFrame", judged: "pd.DataFrame", out: Path) -> None:
    from foretune.analysis.figures.mup_figure import coordinates_figure

    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / FILES[0], index=False)
    judged.to_csv(out / FILES[1], index=False)
    with atomic_write(out / FILES[2], shared=True) as partial:
        coordinates_figure(table).savefig(partial, dpi=130, format="png")


def _summary(judged: "pd.DataFrame", steps: int, lr: float) -> list[str]:
    """The table as text, and how many verdicts there are of each kind."""
    from foretune.analysis.claims.mup_theory import LEVEL, NO_CLAIM, TOLERANCE
    from foretune.analysis.stats.status import CANNOT_TELL

    lines = [
        f"Exponents of the width: init at step 0, update and change after {steps} steps at a "
        f"learning rate of {lr:g}; {LEVEL:.0%} intervals over seeds and blocks",
        f"as theory: the whole interval within {TOLERANCE:g} of it (a missing rule moves an "
        f"exponent by 0.5 or 1)",
    ]
    for name, own in judged.groupby("parametrization", sort=False):
        shown = own.drop(columns=["parametrization", "n"])
        text = shown.to_string(index=False, float_format=lambda x: f"{x:.2f}", na_rep="-")
        lines += ["", str(name), text]
    counts = judged.loc[judged["verdict"] != NO_CLAIM, "verdict"].value_counts()
    more = f"; more {spelled('seeds')} or {spelled('widths')} narrow the intervals"
    cure = more if CANNOT_TELL in counts else ""
    lines += ["", ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + cure]
    return lines
