"""Where AdamW's epsilon begins to weaken updates: gradients shrink as models and rates grow.

An update is r / (r + epsilon) of what it would be without epsilon, r the root mean square of the
clipped gradient (Wortsman et al., arXiv 2309.14322, section 3.4; Adam's is per element, so this is
of the order only).
"""

import math
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.laws.laws import fit
from foretune.analysis.measures.crossing import READ_WINDOW
from foretune.analysis.measures.signal import read_signal

STEM: Final = "grad_rms_"
"""How the telemetry columns of gradients begin; the rest names a parameter kind."""
NEAR: Final = 10.0
"""Multiple of epsilon below which gradients are flagged: 9 % of the update is lost there."""
EPSILON: Final = "optimizer.epsilon"
FORM: Final = "varying-coefficient"
"""Law of a gradient RMS unless another is given."""
COLUMNS: Final = (
    "kind",
    "gradient_rms",
    "low",
    "high",
    "attenuation",
    "attenuation_low",
    "probability_near",
    "flagged",
    "status",
)


def attenuation(
    trials: pd.DataFrame,
    telemetry: pd.DataFrame,
    *,
    n_params: float,
    lr: float,
    epsilon: float | None = None,
    form: str = FORM,
    window: tuple[float, float] = READ_WINDOW,
    level: float = 0.9,
) -> pd.DataFrame:
    """Each parameter kind's gradient at a size and learning rate, and what epsilon does to it.

    One row per kind: `gradient_rms` with `low` and `high` (of one new run), `attenuation` =
    r / (r + epsilon) and its value at `low`, `probability_near` (that r is under 10 epsilon),
    `flagged` (the expected r is), `status` as of `analysis.fit`. trials are of one family;
    `epsilon` is theirs unless given. ValueError where they have none or several.
    """
    line = NEAR * _epsilon(trials, epsilon)
    rows = []
    for column in sorted(name for name in telemetry if name.startswith(STEM)):
        cells = read_signal(trials, telemetry, signal=column, window=window)
        if not (cells["value"] > 0).any():
            continue  # This family has no parameters of the kind.
        law = fit(cells, form)
        found = law.predict(n_params, lr, level)
        known = found.status.can_tell
        near = law.believe(n_params, lr).below(math.log10(line)) if known else math.nan
        rows.append(
            {
                "kind": column.removeprefix(STEM),
                "gradient_rms": found.median,
                "low": found.low,
                "high": found.high,
                "attenuation": found.median / (found.median + line / NEAR),
                "attenuation_low": found.low / (found.low + line / NEAR),
                "probability_near": near,
                "flagged": bool(found.median < line),
                "status": found.status,
            }
        )
    return pd.DataFrame(rows, columns=[*COLUMNS])


def _epsilon(trials: pd.DataFrame, given: float | None) -> float:
    known: Any = trials[EPSILON].dropna().unique() if EPSILON in trials else np.array([])
    values = [given] if given is not None else [float(value) for value in known]
    if len(values) != 1 or not (math.isfinite(values[0]) and values[0] > 0):
        raise ValueError(
            f"epsilon must be one positive number, got {values or 'none in these trials'}; give it"
        )
    return values[0]
