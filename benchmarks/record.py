"""What a benchmark prints, kept as a text file with the command and the machine."""

import os
import platform
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from foretune.tuner.records.provenance import machine

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass
class Record:
    """Lines of one benchmark; `missed` counts the claims whose bound was missed."""

    name: str
    lines: list[str] = field(default_factory=list)
    missed: int = 0

    def __post_init__(self) -> None:
        names = ("torch", "ray")
        versions = ", ".join(f"{name} {version(name)}" for name in names)
        load = os.getloadavg()[0]
        self.say(f"command: python {' '.join([_script(), *sys.argv[1:]])}")
        here = machine()
        self.say(f"machine: {here['processor']}, {here['cpus']} cores, {here['system']}")
        self.say(f"versions: Python {platform.python_version()}, {versions}")
        self.say(f"started: {time.strftime('%Y-%m-%dT%H:%M:%S%z')}, load average {load:.1f}\n")

    def say(self, line: str) -> None:
        """Prints a line and keeps it."""
        print(line, flush=True)
        self.lines.append(line)

    def claim(self, text: str, holds: bool) -> None:
        """Says whether a claim holds."""
        self.missed += not holds
        self.say(f"{'holds ' if holds else 'MISSED'}  {text}")

    def claims(self, judged: Iterable[tuple[str, bool]]) -> None:
        """Says after an empty line which of the claims hold."""
        self.say("")
        for text, holds in judged:
            self.claim(text, holds)

    def close(self, *, save: bool) -> int:
        """Writes results/NAME.txt if asked to; returns the exit code."""
        self.say(f"\nload average at the end {os.getloadavg()[0]:.1f}; {self.missed} missed")
        if save:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{self.name}.txt").write_text("\n".join(self.lines) + "\n")
        return 1 if self.missed else 0


def _script() -> str:
    """The benchmark as it was started: -m and its module's name, or a file."""
    spec = sys.modules["__main__"].__spec__
    return f"-m {spec.name}" if spec else sys.argv[0]
