"""What arguments of several commands have in common, and how a terminal names them."""

import shlex
import sys
from typing import Annotated

from tyro.conf import arg

Assignments = Annotated[tuple[str, ...], arg(name="set", metavar="FIELD=VALUE")]
Interventions = Annotated[tuple[str, ...], arg(name="intervention", metavar="NAME")]


def command_line() -> str:
    """Returns this process's command, as it is written into records."""
    return shlex.join(["foretune", *sys.argv[1:]])
