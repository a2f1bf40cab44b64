"""The sweeps that faults happen to: four trials of 120 updates, two at once on two cores."""

from pathlib import Path

from place import STEPS, Command, Place

GRID = "grid"
OPTUNA = "optuna"


def settings(text: Path) -> tuple[str, ...]:
    return (
        "--set", f"steps={STEPS}", "eval_every=10", "data.name=text", f"data.path={text}",
        "data.validation_sequences=8",
    )  # fmt: skip


def command(kind: str, text: Path, out: Path = Path("sweep")) -> tuple[str, ...]:
    """A sweep by kind: grid, asha or optuna."""
    words = ("sweep", "lr", "--out", str(out), "--sizes", "16", "--drop", "model.qk_norm")
    if kind == OPTUNA:
        # Ten draws are made before Optuna looks at results, so that their order doesn't matter.
        kinds = ("--search", "optuna", "--num-samples", "4", "--max-concurrent", "2")
    else:
        kinds = ("--grid", "optimizer.lr=1e-2,3e-2", "--seeds", "2")
    if kind == "asha":
        kinds = (*kinds, "--scheduler", "asha")
    return (*words, *kinds, *settings(text))


def expect(place: Place, kind: str = GRID) -> None:
    """Says which sweep a place is held against; ASHA's by the one that stops none."""
    name = OPTUNA if kind == OPTUNA else GRID
    place.scheduled = kind == "asha"
    place.expected = place.references.sweep(name, command(name, place.text), lambda folder: None)


def begin(place: Place, kind: str = GRID, *more: object) -> Command:
    """Starts a sweep; its checkpoints are as dense as each of their settings leaves them."""
    expect(place, kind)
    seconds = place.random.choice((0, 0.3))
    words = command(kind, place.text, place.out)
    return place.start(*words, "--checkpoint-seconds", seconds, *more)
