"""The command `foretune`; `python -m foretune` is the same.

Exit codes: 0 done; 1 a coordinate check isn't as theory says; 2 bad arguments, in one sentence; 3
some trials failed for a reason other than divergence, or a sweep couldn't go on (no node left for
its trials, storage that fails, Ray that ended); 4 the run of `train` diverged; 130 interrupted
(Ctrl-C, SIGTERM); 141 where the reader of its output has gone.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import tyro

from foretune.argument_error import flags
from foretune.redaction import redacted, remember_environment, remember_words
from foretune.tuner.cli.backtest import backtest
from foretune.tuner.cli.collect import collect
from foretune.tuner.cli.coord_check import coord_check
from foretune.tuner.cli.export import export
from foretune.tuner.cli.list import list_names
from foretune.tuner.cli.predict import predict
from foretune.tuner.cli.report import report
from foretune.tuner.cli.reproduce import reproduce
from foretune.tuner.cli.resume import resume
from foretune.tuner.cli.submit import submission
from foretune.tuner.cli.sweep import sweep
from foretune.tuner.cli.sync import sync
from foretune.tuner.cli.train import train
from foretune.tuner.records.storage import storage_error, storage_sentence

DESCRIPTION = """Hyperparameter tuning that sees divergence coming.

Exit codes: 0 done; 1 a coordinate check isn't as theory says; 2 bad arguments; 3 some trials failed
for a reason other than divergence, or the sweep couldn't go on; 4 the run of `train` diverged;
130 interrupted."""

INTERRUPTED = 130
"""128 + SIGINT, as a shell has it."""
MANY = (
    "--set",
    "--grid",
    "--intervention",
    "--sizes",
    "--check",
    "--drop",
    "--at",
    "--widths",
    "--parametrization",
)
"""Options that take several values, in one go or repeated."""
FLAGS = {
    "checks": "--check",
    "grids": "--grid",
    "interventions": "--intervention",
    "overrides": "--set",
    "parametrizations": "--parametrization",
}
"""Flags of arguments that a command line names otherwise; the others are spelt --as-they-are."""


COMMANDS: dict[str, Callable[..., int]] = {
    "train": train,
    "sweep": sweep,
    "resume": resume,
    "collect": collect,
    "report": report,
    "predict": predict,
    "backtest": backtest,
    "export": export,
    "sync": sync,
    "coord-check": coord_check,
    "reproduce": reproduce,
    "submit": submission([]),
    "list": list_names,
}
"""Commands by name."""


def main(argv: list[str] | None = None) -> None:
    """Runs a command and exits with its code."""
    arguments = sys.argv[1:] if argv is None else argv
    remember_environment()
    remember_words(arguments)
    commands = COMMANDS
    if arguments[:1] == ["submit"] and "--" in arguments:
        cut = arguments.index("--")
        commands = {**COMMANDS, "submit": submission(arguments[cut + 1 :])}
        arguments = arguments[:cut]
    try:
        try:
            with flags(flag):
                code = _run(commands, arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # As in `foretune list spaces | head -1`.
        # What is left goes nowhere; the interpreter's own flush would complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    if code == INTERRUPTED and argv is None:
        # Ray and torch may be in the middle of their start: the interpreter's own end was seen to
        # take 6 s then, and to segfault.
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run(commands: dict[str, Callable[..., int]], arguments: list[str]) -> int:
    try:
        return tyro.extras.subcommand_cli_from_dict(
            commands, prog="foretune", description=DESCRIPTION, args=gather(arguments)
        )
    except ValueError as error:
        print(f"foretune: {redacted(str(error))}", file=sys.stderr)
        return 2
    except Exception as error:
        why = _why_it_ends(error)
        if not why:
            raise
        print(f"foretune: {redacted(why)}", file=sys.stderr)
        return 3
    except KeyboardInterrupt as error:
        print(f"foretune: {str(error) or 'Interrupted.'}", file=sys.stderr)
        return INTERRUPTED


def _why_it_ends(error: Exception) -> str:
    """Returns a sentence on what is nobody's mistake in a command, or nothing for other errors."""
    own_code = sys.modules.get("foretune.tuner.training.own_code")  # None: no model was built.
    if own_code is not None and isinstance(error, own_code.ModelError):
        return str(error)
    failed = storage_error(error)
    if failed is None:
        return ""
    named = isinstance(failed.filename, str | bytes | os.PathLike)  # It may be a descriptor.
    place = Path(os.fsdecode(failed.filename)).resolve().parent if named else None
    return storage_sentence(failed, place, again="give the same command, or for a sweep resume")


def flag(argument: str) -> str:
    """Returns how a command line names an argument."""
    return FLAGS.get(argument, f"--{argument.replace('_', '-')}")


def gather(arguments: list[str]) -> list[str]:
    """Returns the arguments with repeated options of several values joined into one each.

    Otherwise the last `--set` would silently replace the ones before it. Raises ValueError for such
    an option without a value, which would be as good as not given.
    """
    kept: list[str] = []
    values: dict[str, list[str]] = {}
    into, empty = kept, ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not argument.startswith("--"):
            into.append(argument)
            empty = ""
            continue
        if empty:
            break
        into = values.setdefault(name, []) if name in MANY else kept
        if name not in MANY:
            kept.append(argument)
        elif equals:
            into.append(value)
        else:
            empty = name
    if empty:
        raise ValueError(f"{empty} must be given a value, got none; leave it out for its default.")
    return kept + [word for name, words in values.items() for word in (name, *words)]
