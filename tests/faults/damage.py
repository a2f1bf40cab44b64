"""Files of an interrupted sweep are damaged; it is resumed by the real command.

What can't be used any more is named in a sentence, with exit code 2 or 3; once that file is put
back from a copy, the sweep goes on to the same numbers all the same.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from place import STEPS, Lost, Place, References
from sweeps import command, expect


def interrupted(references: References) -> Path:
    """Returns a sweep whose driver was killed: some runs have ended, one has two checkpoints."""
    if "interrupted" not in references.made:
        place = Place(references, references.folder / "interrupted", seed=1)
        try:
            sweep = place.start(*command("grid", place.text), "--checkpoint-seconds", 0)
            if not sweep.reaches(lambda: place.ended() and young(place.out) and sent(place.out)):
                raise Lost(f"no sweep to be damaged: {sweep.output[-300:]}")
            place.end_process(sweep.pid)
            sweep.end()
            place.check_left()
        finally:
            place.close(keep=True)
        references.made["interrupted"] = place.out
    return references.made["interrupted"]


def begun(out: Path) -> list[Path]:
    """Folders of runs with two checkpoints and no outcome."""
    found = [path.parents[1] for path in out.glob("runs/*/checkpoint/state.previous.pt")]
    return [folder for folder in found if not (folder / "outcome.json").exists()]


def young(out: Path) -> bool:
    """Whether one of them is far from its end, at which the checkpoint before is removed."""
    rows = [(folder / "metrics.jsonl").read_bytes().count(b"\n") for folder in begun(out)]
    return any(count < STEPS * 2 / 3 for count in rows)


def sent(out: Path) -> bool:
    """Whether MLflow's database is there."""
    return (out / "mlflow.db").exists()


def flip(path: Path, random: Random) -> None:
    """Flips up to three bits."""
    content = bytearray(path.read_bytes())
    for _ in range(random.randint(1, 3)):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, random: Random) -> None:
    """Leaves a part of a file, or nothing."""
    content = path.read_bytes()
    path.write_bytes(content[: random.randrange(len(content))])


def damaged(choose: Callable[[Path, Random], list[Path]]) -> Callable[[Place], None]:
    """Damages files of a copy, by turns flipped and truncated, and goes on."""

    def run(place: Place) -> None:
        expect(place)
        whole = interrupted(place.references)
        shutil.copytree(whole, place.out)
        change = (flip, truncate)[place.number % 2]
        files = choose(place.out, place.random)
        for path in files:
            change(path, place.random)
        place.moment = (
            f"{change.__name__} {', '.join(str(p.relative_to(place.out)) for p in files)}"
        )
        output = place.run("resume", place.out, codes=(0, 2, 3))
        if place.commands[-1].process.returncode:
            for path in files:
                if path.name not in output:
                    raise Lost(f"{path.name} isn't named: {output[-400:]}")
                shutil.copy(whole / path.relative_to(place.out), path)
            output = place.run("resume", place.out)
        place.sync(output)

    return run


def newest(out: Path, random: Random) -> list[Path]:
    return [random.choice(begun(out)) / "checkpoint" / "state.pt"]


def both(out: Path, random: Random) -> list[Path]:
    folder = random.choice(begun(out)) / "checkpoint"
    return [folder / "state.pt", folder / "state.previous.pt"]


def any_of(pattern: str) -> Callable[[Path, Random], list[Path]]:
    """One of the files of a pattern."""
    return lambda out, random: [random.choice(sorted(out.glob(pattern)))]


FILES: dict[str, Callable[[Path, Random], list[Path]]] = {
    "newest checkpoint": newest,
    "both checkpoints": both,
    **{name: any_of(f"runs/*/{name}") for name in ("metrics.jsonl", "run.json", "outcome.json")},
    **{name: any_of(name) for name in ("sweep.json", "mlflow.db")},
}
