"""How many runs a sweep draws, and how; apart from `Plan`, which loads Ray."""

from dataclasses import dataclass
from typing import Literal

Search = Literal["grid", "random", "optuna"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How runs are drawn from a space."""

    search: Search = "grid"
    """grid tries all combinations of the grids, with other domains drawn;
    random draws as many samples as asked for of each part of the space, grids drawn too;
    optuna chooses as many one after another, by how the earlier ones ended."""
    num_samples: int = 1
    """Draws (for grid: repetitions of each combination)."""
    seeds: int = 1
    """Seeds of every combination, from `seed` on (not for optuna)."""
    seed: int = 0
    """First seed, and the seed of random draws."""
