"""Where a fault happens: a folder, a text, a seed, sweeps that nothing disturbed, and commands.

Commands are processes of their own. Nothing waits for seconds but for what a command does; what
takes longer than LIMIT_S counts as lost.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from process_tree import alive, command_of

ROOT = Path(__file__).parents[2]
LIMIT_S = 420.0
"""What a command may take on a busy machine; one of these sweeps takes 10 s on two quiet cores."""
END_S = 60.0
"""What may pass until all that a command has started has ended."""
STEPS = 120
MARK = "FORETUNE_FAULT"
"""Variable by whose value the processes of a try are known, orphans too."""


class Lost(Exception):
    """What a fault cost, in a sentence."""


class Command:
    """A foretune command that runs, in a process group of its own; its output goes to a file."""

    def __init__(self, words: tuple[str, ...], *, cwd: Path, environment: Mapping[str, str]):
        self.words, self.log = words, cwd / f"output-{uuid.uuid4().hex[:8]}.txt"
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "foretune", *words],
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                start_new_session=True, cwd=cwd, env=dict(environment),
            )  # fmt: skip
        self._until = time.monotonic() + LIMIT_S

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def reaches(self, event: Callable[[], object]) -> bool:
        """Waits for an event; whether it came before the command's end."""
        while not event():
            if self.process.poll() is not None:
                return bool(event())
            self._check_time(str(getattr(event, "__name__", event)))
            time.sleep(0.01)
        return True

    def send(self, number: int, *, group: bool = False) -> None:
        """Signals the command, or its process group; one that has ended is left alone."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def end(self) -> int:
        """Waits for the end of the command; returns its exit code."""
        while self.process.poll() is None:
            self._check_time("its end")
            time.sleep(0.02)
        return self.process.returncode

    def _check_time(self, what: str) -> None:
        if time.monotonic() > self._until:
            words = f"foretune {' '.join(self.words[:2])}"
            raise Lost(f"{words}: {what} didn't come within {LIMIT_S:g} s: {self.output[-300:]}")


class References:
    """Sweeps that nothing disturbed, each made when it is first asked for, and what they need."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.text = folder / "os.txt"
        self.text.write_bytes(Path(os.__file__).read_bytes()[:40_000])
        self.made: dict[str, Path] = {}

    def sweep(self, name: str, words: tuple[str, ...], prepare: Callable[[Path], object]) -> Path:
        """Returns the directory of a sweep by this command."""
        if name not in self.made:
            place = Place(self, self.folder / name, seed=0)
            prepare(place.folder)
            try:
                place.run(*words)
                place.check_left()
            finally:
                place.close(keep=True)
            self.made[name] = place.out
        return self.made[name]


class Place:
    """Where one try happens."""

    def __init__(self, references: References, folder: Path, *, seed: int, number: int = 0):
        self.references, self.folder, self.number = references, folder, number
        folder.mkdir(parents=True)
        self.text, self.random = references.text, random.Random(seed)
        self.out = folder / "sweep"
        self.expected: Path | None = None
        """The sweep that this one must equal; none where a fault compares by itself."""
        self.alike: dict[str, str] = {}
        """{run id: whose numbers it must have}, where the ids aren't those of the reference."""
        self.scheduled = False
        """Whether a scheduler may have stopped runs, by an order of events that isn't the same."""
        self.store = ""
        """MLflow's server, if it isn't the sweep's own database."""
        self.judged = False
        """Whether that was checked while it ran."""
        self.commands: list[Command] = []
        self.said: list[str] = []
        """What is wrong besides the checks."""
        self.moment = ""
        """When the fault happened."""
        self._mark = uuid.uuid4().hex
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        kept.pop("RAY_ADDRESS", None)
        self.environment = {
            **kept, MARK: self._mark, "PYTHONPATH": str(ROOT), "HOME": str(references.folder),
            "XDG_STATE_HOME": str(folder / "state"), "PYTHONDONTWRITEBYTECODE": "",
        }  # fmt: skip

    def start(self, *words: object) -> Command:
        """Starts a foretune command in the folder."""
        texts = tuple(str(word) for word in words)
        self.commands.append(Command(texts, cwd=self.folder, environment=self.environment))
        return self.commands[-1]

    def run(self, *words: object, codes: tuple[int, ...] = (0,)) -> str:
        """Runs a foretune command to its end, which must have one of these exit codes."""
        return self.finish(self.start(*words), codes)

    def finish(self, command: Command, codes: tuple[int, ...] = (0,)) -> str:
        """Returns what a command printed, once it has ended with one of these exit codes."""
        code = command.end()
        if code not in codes:
            raise Lost(f"exit code {code} instead of {codes}: {command.output[-400:]}")
        return command.output

    def resume(self, *words: object) -> str:
        """Goes on to the end of the sweep, and sends what still waits for MLflow, if it says so."""
        output = self.run("resume", self.out, *words)
        self.sync(output)
        return output

    def sync(self, output: str) -> None:
        """Sends what a command says that MLflow hasn't received."""
        if "has not received" in output:
            self.run("sync", self.out)

    def processes(self, name: str = "") -> set[int]:
        """The processes of this try whose command line holds a name."""
        found = set()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self._mark}".encode() in path.read_bytes():
                    found.add(int(path.parent.name))
        found -= {os.getpid()}
        return {pid for pid in alive(found) if name in command_of(pid)}

    def workers(self) -> set[int]:
        """Ray's workers of this try, which are called by what they do, as idle ones are."""
        return self.processes("ray::") - self.processes("Agent")

    def kill(self, name: str) -> None:
        """Kills one process of this try, chosen at random among those of a name, or of workers."""
        pids = sorted(self.processes(name) if name != "worker" else self.workers())
        if not pids:
            raise Lost(f"no process of {name} was there to be killed")
        self.end_process(self.random.choice(pids))

    def end_process(self, pid: int) -> None:
        """Kills a process, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def lines(self) -> int:
        """Rows in all metrics.jsonl."""
        count = 0
        for path in self.out.glob("runs/*/metrics.jsonl"):
            with contextlib.suppress(OSError):
                count += path.read_bytes().count(b"\n")
        return count

    def ended(self) -> int:
        """Runs that have an outcome."""
        return len(list(self.out.glob("runs/*/outcome.json")))

    def in_training(self, command: Command, share: float | None = None) -> int:
        """Waits until a number of rows is there, a share of all or one chosen at random.

        Returns it.
        """
        assert self.expected is not None
        whole = len(list(self.expected.glob("runs/*"))) * (STEPS + 1)
        rows = int(whole * (self.random.uniform(0.02, 0.9) if share is None else share))
        command.reaches(lambda: self.lines() >= rows)
        self.moment = f"in training: {rows} of {whole} rows"
        return rows

    def trials(self) -> int:
        """How many trials the sweep has, as it says itself."""
        return json.loads((self.out / "sweep.json").read_text())["trials"]

    def check_left(self) -> None:
        """Raises Lost where a process is left of what the commands have started."""
        until = time.monotonic() + END_S
        while left := self.processes():
            if time.monotonic() > until:
                raise Lost(f"left running: {'; '.join(command_of(pid)[:80] for pid in left)}")
            time.sleep(0.1)

    def close(self, *, keep: bool = False) -> None:
        """Kills what is left, and removes the folder."""
        for pid in self.processes():
            self.end_process(pid)
        for command in self.commands:
            command.process.wait()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
