"""Commands that check something before a sweep: their arguments, and what they are called with."""

from typing import Annotated

from tyro.conf import Positional, arg

from foretune.tuner.cli.run_options import Assignments
from foretune.tuner.config.assignments import parse_assignments

Names = Annotated[tuple[str, ...], arg(name="parametrization", metavar="NAME")]


def coord_check(
    preset: Positional[str] = "lm-tiny",
    /,
    *,
    out: str,
    parametrizations: Names = (
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
    from foretune.tuner.cli.coord_check import coord_check as run
    from foretune.tuner.records.files import local_path

    return run(
        preset,
        out=local_path("--out", out),
        parametrizations=parametrizations,
        widths=widths,
        steps=steps,
        lr=lr,
        seeds=seeds,
        overrides=parse_assignments(overrides),
    )
