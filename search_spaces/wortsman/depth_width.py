"""Does depth make training more sensitive to the learning rate than width does, and which buys the
lower loss? (Source A, figure 7 and appendices E.2 and E.3.)

Three ladders, with qk-layernorm on: width (three blocks), depth (width 32), and both together (as
many blocks as heads), x learning rate. The paper found that depth raises sensitivity faster, that
it gives the lower loss at the largest scale, and that both together extrapolate best. Cost of 50
combinations and a seed: at `tiny` (300 steps) two and a half minutes on one core of an AMD Zen 5;
at `small` 72 trials, 1.8e17 FLOP; at `paper` 84 trials, 1.6e21 FLOP, 1,094 H100 hours (`foretune
reproduce fig7 --dry-run`).
"""

from collections.abc import Iterable
from typing import Any

from ray import tune

from foretune.search_spaces.grids import RATES, SIZES

VARIANTS = {name: {"model.ladder": ladder} for name, ladder in (
    ("width", "width"), ("depth", "depth"), ("both", "joint")
)}  # fmt: skip


def ladders(
    *,
    sizes: Iterable[int] = SIZES,
    width: int = 32,
    depths: Iterable[int] = (1, 3, 6, 12),
    rates: Iterable[float] = RATES,
    qk_norm: bool = True,
) -> list[dict[str, Any]]:
    """Returns a part per ladder: rungs of width and of both, and depths at one width."""
    rungs = {"width": {}, "depth": {"model.width": width}, "both": {}}
    return [
        {
            "model.qk_norm": qk_norm,
            **VARIANTS[name],
            **fixed,
            "model.size": tune.grid_search(list(depths if name == "depth" else sizes)),
            "optimizer.lr": tune.grid_search(list(rates)),
        }
        for name, fixed in rungs.items()
    ]


SPACE = ladders()
