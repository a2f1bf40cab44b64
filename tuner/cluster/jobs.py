"""A foretune command as a Ray job: sent to the head over HTTP, followed, its exit code returned."""

import asyncio
import logging
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from ray.exceptions import RayError
from ray.job_submission import JobSubmissionClient

from foretune.argument_error import Argument, ArgumentError
from foretune.redaction import redacted_words
from foretune.tuner.cluster.connect import shipped
from foretune.tuner.cluster.head import (
    ANSWER_S,
    authentication,
    restore_environment,
    set_environment,
)
from foretune.tuner.records.provenance import COMMIT_VARIABLE, commit

DASHBOARD = "http://127.0.0.1:8265"
STOPPED = 130
"""Exit code of a job that was stopped: 128 + SIGINT, as a shell has it."""
STOP_WAIT_S = 60
"""Seconds a stopped job has to write its outcomes before it is killed."""
ON_CLUSTER = ("sweep", "resume")
"""Commands that take --address."""
POLL_S = 1.0
LOST_S = 120.0
"""Seconds without an answer after which a job that is followed counts as lost."""
LOG_END_S = 10.0
"""Seconds within which the rest of the log comes once a job has ended."""


def submit(command: list[str], *, address: str = "", working_dir: Path, wait: bool = True) -> int:
    """Returns the exit code of a foretune command that ran as a Ray job.

    Args:
        command: what follows `foretune`; sweep and resume get `--address auto` where they have
            no address.
        address: the head's dashboard; empty is RAY_API_SERVER_ADDRESS or http://127.0.0.1:8265.
        working_dir: the checkout to ship.
        wait: whether to stream its output until it ends; otherwise 0 once it is accepted.

    The job learns the checkout's commit by the variable FORETUNE_COMMIT, for its `sweep.json`.
    Raises ValueError, in a sentence, where the dashboard can't be reached or the command would
    write into the job's temporary copy of the checkout.
    """
    url = _url(address or os.environ.get("RAY_API_SERVER_ADDRESS") or DASHBOARD)
    entrypoint = _entrypoint(command)
    runtime_env = shipped(working_dir, whole=True)
    runtime_env["env_vars"] = {
        # The copy of the checkout has no .git.
        COMMIT_VARIABLE: commit(working_dir),
        # SIGTERM is Ray's default and leaves 3 s; SIGINT ends a sweep cleanly.
        "RAY_JOB_STOP_SIGNAL": "SIGINT",
        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
    }
    before = set_environment(authentication(local=False))
    try:
        client = _client(url)
        job = _send(client, url, entrypoint, runtime_env)
        if wait:
            return _follow_or_stop(client, job)
        print(f"{job} is submitted to {url}; follow it with ray job logs --follow {job}.")
        return 0
    finally:
        restore_environment(before)


def _follow_or_stop(client: Any, job: str) -> int:
    try:
        return _follow(client, job)
    except KeyboardInterrupt:
        print(f"\nStopping {job} ...", file=sys.stderr)
        client.stop_job(job)
        _ended(client, job)
        print(
            f"{job} is stopped; a sweep goes on with foretune submit -- resume DIR.",
            file=sys.stderr,
        )
        return STOPPED


def _entrypoint(command: list[str]) -> str:
    """The shell line of the job, by the Python whose environment `ray start` ran in."""
    words = command[1:] if command[:1] == ["foretune"] else list(command)
    if not words:
        raise ValueError(
            "submit must be given a command, got none; write it like sweep lr --out DIR."
        )
    _check_absolute(words)
    _check_no_secret(words)
    if words[0] in ON_CLUSTER and not any(
        word == "--address" or word.startswith("--address=") for word in words
    ):
        words += ["--address", "auto"]
    # exec: the signal and the exit code are Python's own, not the shell's.
    return "exec python -m foretune " + shlex.join(words)


def _check_no_secret(words: list[str]) -> None:
    """ValueError where a job's command holds a secret: the dashboard shows it, and `ps` there."""
    for word, hidden in zip(words, redacted_words(words), strict=True):
        if word != hidden:
            raise ValueError(
                f"The command of a job must hold no secret, since Ray shows it to all who see the "
                f"cluster, got {hidden!r}; give it in the environment of `ray start`, like "
                f"MLFLOW_TRACKING_URI."
            )


def _check_absolute(words: list[str]) -> None:
    """ValueError where results would go to the job's copy of the checkout, which Ray deletes."""
    named = _values(words, "--out")
    if words[0] == "resume":
        named += [word for word in words[1:2] if not word.startswith("-")]
    for path in named:
        if not path.startswith("/"):
            raise ValueError(
                f"The directory of a job must be an absolute path that all nodes share, got "
                f"{path!r}; write it like /shared/sweeps/{Path(path).name or 'first'}."
            )
    for uri in _values(words, "--tracking-uri"):
        if uri and _is_relative_store(uri):
            raise ArgumentError(
                Argument("tracking_uri"),
                f" of a job must name a server or an absolute path that all nodes "
                f"share, got {uri!r}; write it like http://HOST:5000 or "
                f"sqlite:////shared/mlflow.db.",
            )


def _values(words: list[str], option: str) -> list[str]:
    """What a command gives an option, as --name VALUE or --name=VALUE, with - or _ in the name."""
    values = []
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == option:
            values.append(value if equals else after)
    return values


def _is_relative_store(uri: str) -> bool:
    parts = urlsplit(uri)
    if parts.scheme.partition("+")[0] == "sqlite":  # sqlite:///relative, sqlite:////absolute
        return not parts.path.startswith("//")
    return parts.scheme in ("", "file") and uri != "databricks" and not parts.path.startswith("/")


def _url(address: str) -> str:
    url = address if "://" in address else f"http://{address}"
    if not url.startswith(("http://", "https://")):
        raise ArgumentError(
            Argument("address"),
            f" must be the head's dashboard, got {address}; write it like {DASHBOARD}.",
        )
    return url.rstrip("/")


def _client(url: str) -> Any:
    """A client of a dashboard that answers and lets us in."""
    try:
        # The client has no timeout of its own.
        requests.get(f"{url}/api/version", timeout=ANSWER_S)
    except requests.RequestException as error:
        raise ArgumentError(
            Argument("address"),
            f" must be a running Ray dashboard, got {url}, where none answers within "
            f"{ANSWER_S:g} s ({type(error).__name__}); start one (`ray start --head`), or open a "
            f"tunnel to it: ssh -N -L 8265:127.0.0.1:8265 HEAD.",
        ) from None
    # The client prefers these to the address that it is given.
    before = {
        name: os.environ.pop(name, None) for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    }
    try:
        return JobSubmissionClient(url)
    except (OSError, RuntimeError, KeyError, RayError) as error:
        raise ArgumentError(
            Argument("address"),
            f" must be a Ray dashboard that takes our jobs, got {url} "
            f"({_first_line(error)}); for a token, copy the head's ~/.ray/auth_token or set "
            f"RAY_AUTH_TOKEN_PATH to it.",
        ) from None
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _send(client: Any, url: str, entrypoint: str, runtime_env: dict[str, Any]) -> str:
    try:
        with _quiet():
            return client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"The checkout must reach {url}, got a refusal ({_first_line(error)}); list what need "
            f"not be shipped in {runtime_env['working_dir']}/.rayignore."
        ) from error


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def _follow(client: Any, job: str) -> int:
    # In a thread: a Ctrl-C that asyncio turns into a cancellation can be lost inside of the client
    # (seen once on a busy machine), one that interrupts the polling below can't.
    log = threading.Thread(target=_print_log, args=(client, job), daemon=True)
    log.start()
    info = _ended(client, job)
    log.join(LOG_END_S)
    if info.status.value == "STOPPED":
        print(f"{job} was stopped.", file=sys.stderr)
        return STOPPED
    if info.driver_exit_code is None:
        reason = _first_line(info.message or "no reason given")
        print(f"{job} failed before its command ended: {reason}", file=sys.stderr)
        return 1
    code = info.driver_exit_code
    return code if code >= 0 else 128 - code


def _print_log(client: Any, job: str) -> None:
    async def stream() -> None:
        async for text in client.tail_job_logs(job):
            print(text, end="", flush=True)

    try:
        with _quiet():
            asyncio.run(stream())
    except (OSError, RuntimeError) as error:
        print(f"The log of {job} is cut off ({error}); waiting for its end.", file=sys.stderr)


def _ended(client: Any, job: str) -> Any:
    """Waits for the end of a job; a dashboard that is away for a while is asked again."""
    answered = time.monotonic()
    while True:
        try:
            info = client.get_job_info(job)
            answered = time.monotonic()
            if info.status.is_terminal():
                return info
        except (OSError, RuntimeError) as error:
            if time.monotonic() - answered > LOST_S:
                raise ValueError(
                    f"The dashboard must answer while {job} runs, got nothing for {LOST_S:g} s "
                    f"({_first_line(error)}); the job goes on without us: ray job status {job}."
                ) from None
        time.sleep(POLL_S)


@contextmanager
def _quiet() -> Iterator[None]:
    """Drops Ray's report of every ignore file that it reads, from loggers with own levels."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
