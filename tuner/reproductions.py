"""What `foretune reproduce` can run, by name."""

from search_spaces import bank
from tuner.paper_reproductions import PAPER
from tuner.reproduction import DIGITS, SCALES, Part, Reproduction
from tuner.ternary_reproductions import TERNARY

__all__ = ["REPRODUCTIONS", "SCALES", "Part", "Reproduction"]

TELEMETRY = {"telemetry_every": 2}
BANK_RUN = {"steps": 300, **TELEMETRY}


def _bank() -> dict[str, Part]:
    lm = {
        "core": Part(space=bank.CORE, overrides=BANK_RUN),
        "edge": Part(space=bank.EDGE, overrides=BANK_RUN),
        **{
            f"random-{seed}": Part(space=space, overrides=BANK_RUN, most_seeds=1)
            for seed, space in bank.RANDOM.items()
        },
        "switches": Part(space=bank.ONE_AT_A_TIME, overrides=TELEMETRY, most_seeds=1),
        "cured": Part(space=bank.CURED, overrides=TELEMETRY, most_seeds=1),
        "text": Part(space=bank.TEXT, overrides=BANK_RUN, most_seeds=1),
        "ternary": Part(space=bank.TERNARY, overrides=BANK_RUN, most_seeds=2),
    }
    images = Part(
        space=bank.IMAGES, preset="vit-tiny", overrides={**BANK_RUN, **DIGITS}, most_seeds=2
    )
    large = Part(space=bank.LARGE, overrides=BANK_RUN, most_seeds=1)
    return {**lm, "images": images, "large": large}


REPRODUCTIONS: dict[str, Reproduction] = {
    **PAPER,
    **TERNARY,
    "bank": Reproduction(
        question="What do runs look like that will become unstable? Records to fit forecasts on.",
        parts={"tiny": _bank()},
        freeze=True,
    ),
}
"""Reproductions by name."""
