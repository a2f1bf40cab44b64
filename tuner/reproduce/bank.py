"""The bank: records of many runs to fit forecasts on, frozen in one place instead of judged."""

from foretune.search_spaces import forecast_bank
from foretune.tuner.reproduce.figure import DIGITS, Figure, FigureSweep

TELEMETRY = {"telemetry_every": 2}
BANK_RUN = {"steps": 300, **TELEMETRY}


def _sweeps() -> dict[str, FigureSweep]:
    lm = {
        "core": FigureSweep(space=forecast_bank.CORE, overrides=BANK_RUN),
        "edge": FigureSweep(space=forecast_bank.EDGE, overrides=BANK_RUN),
        **{
            f"random-{seed}": FigureSweep(space=space, overrides=BANK_RUN, most_seeds=1)
            for seed, space in forecast_bank.RANDOM.items()
        },
        "switches": FigureSweep(
            space=forecast_bank.ONE_AT_A_TIME, overrides=TELEMETRY, most_seeds=1
        ),
        "cured": FigureSweep(space=forecast_bank.CURED, overrides=TELEMETRY, most_seeds=1),
        "text": FigureSweep(space=forecast_bank.TEXT, overrides=BANK_RUN, most_seeds=1),
        "ternary": FigureSweep(space=forecast_bank.TERNARY, overrides=BANK_RUN, most_seeds=2),
    }
    images = FigureSweep(
        space=forecast_bank.IMAGES,
        preset="vit-tiny",
        overrides={**BANK_RUN, **DIGITS},
        most_seeds=2,
    )
    large = FigureSweep(space=forecast_bank.LARGE, overrides=BANK_RUN, most_seeds=1)
    return {**lm, "images": images, "large": large}


BANK = Figure(
    question="What do runs look like that will become unstable? Records to fit forecasts on.",
    parts={"tiny": _sweeps()},
    freeze=True,
)
