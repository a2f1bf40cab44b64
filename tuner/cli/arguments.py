"""What arguments of several commands have in common, and how a terminal names them."""

import shlex
import sys
from typing import Annotated

from tyro.conf import arg

from foretune.redaction import redacted_words

Assignments = Annotated[tuple[str, ...], arg(name="set", metavar="FIELD=VALUE")]
Interventions = Annotated[tuple[str, ...], arg(name="intervention", metavar="NAME")]


def command_line() -> str:
    """Returns this process's command without its secrets, as it is written into records."""
    return shlex.join(["foretune", *redacted_words(sys.argv[1:])])
