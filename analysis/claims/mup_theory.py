"""The coordinate check: how signals and their changes grow with width, and how theory says they do.

Yang et al. 2022 (Tensor Programs V), appendix D.1, for pre-norm transformers under Adam. Only the
width D grows: head dimension, depth, batch and data stay. Exponents of D, at a fixed step:

- `init`, the RMS at initialization. Inputs of q, k, v, of the MLP and of the head come from a norm,
  so their RMS is 1, and weights of deviation 1 / sqrt(fan_in) keep it: 0. The same holds for what
  leaves attention and MLP, and so for a block's output. Token embeddings of deviation 1 / sqrt(D)
  fall as -1/2; patches are read by weights whose inputs don't grow: 0. Attention logits are sums
  over a head, which doesn't grow: 0. The head of mup-intermediate and mup-full, of deviation
  sqrt(base) / fan_in, gives logits that fall as -1/2. Queries of mup-full are 0, and so its logits.
- `update`, the RMS of (W_t - W_0) x_t, what a layer's own change of weights does, with x_t scaled
  to the RMS that it had at initialization: so a layer doesn't answer for what comes before it. Adam
  moves each weight by about the learning rate, whatever the gradient. Of D such moves times x the
  sum grows as D where they agree in sign, which gradients (sums over those x) make them do, and as
  sqrt(D) where they don't: 1/2 to 1 at one learning rate for all widths. muP's factor 1 / D on the
  learning rate takes 1 off: 0 where they agree, as they do in the limit of large widths. An
  embedding is a look-up, without a sum: 0, always.
- `change`, the RMS of output_t - output_0 on the same batch, for what has no weights of its own:
  the sum of the layers' effects in a block's output, their product in the attention logits. 0 under
  muP; otherwise 1/2 or more, and 2 where two changes that grow as D meet. Of layers with weights it
  is shown, not judged: it mixes their own update with what reaches them.

A verdict is which exponent is near, not how well it is met: a rule that is left out moves one by
1/2 (an initial value) or by 1 (a learning rate), so TOLERANCE is half of the smaller.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from scipy import stats

from foretune.analysis.stats.status import CANNOT_TELL

COLUMNS: Final = (
    "parametrization",
    "width",
    "seed",
    "step",
    "layer",
    "block",
    "rms",
    "change",
    "update",
)
"""Of a table of coordinates: a row per layer and block (-1: in none), width, seed and step (0: at
initialization). `layer` is one of LAYERS; the rest as above, in units of the signal."""
LINEAR: Final = ("q", "k", "v", "attention_out", "mlp_gate", "mlp_in", "mlp_out", "logits")
"""Layers whose weights muP has a rule for; `logits` is what the head gives."""
EMBEDDINGS: Final = ("embedding", "patch_embedding")
BETWEEN: Final = ("attention_logits", "block_output")
"""What has no weights of its own."""
LAYERS: Final = (*EMBEDDINGS, *LINEAR[:3], BETWEEN[0], *LINEAR[3:-1], BETWEEN[1], "logits")
"""All layers, from the input on."""
TOLERANCE: Final = 0.25
LEVEL: Final = 0.9
"""Coverage of the intervals of slopes."""

FITS, FAILS = "as theory", "not as theory"
NO_CLAIM: Final = "-"
"""Theory and verdict of what is only shown."""


@dataclass(frozen=True, slots=True)
class Theory:
    """The exponents of the width that a quantity may have; `zero` where it is 0 at every width."""

    low: float = 0.0
    high: float = 0.0
    zero: bool = False

    def __str__(self) -> str:
        if self.zero:
            return "none: 0"
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g} to {self.high:g}"


def theory_of(parametrization: str, layer: str, quantity: str) -> Theory | None:
    """Returns what theory says of a layer; None where it says nothing (see the module)."""
    mup = parametrization != "standard"
    if quantity == "init":
        if parametrization == "mup-full" and layer in ("q", "attention_logits"):
            return Theory(zero=True)
        falls = layer == "embedding" or (
            layer == "logits" and parametrization in ("mup-intermediate", "mup-full")
        )
        return Theory(-0.5, -0.5) if falls else Theory()
    if quantity == "update" and layer in (*LINEAR, *EMBEDDINGS):
        return Theory() if mup or layer in EMBEDDINGS else Theory(0.5, 1.0)
    if quantity == "change" and layer in BETWEEN:
        return Theory() if mup else Theory(0.5, 2.0)
    return None


def judge(coordinates: pd.DataFrame) -> pd.DataFrame:
    """Returns a slope and a verdict for every parametrization, layer and quantity.

    coordinates has the columns COLUMNS. Columns of the result: parametrization layer quantity slope
    low high (the interval of the mean over seeds and blocks, coverage LEVEL) n (slopes) theory
    verdict. Slopes are of log RMS on log width, at the last step (`init`: at step 0). Changes are
    judged where every layer before the head updates as theory says: they follow from that.
    """
    rows = [
        row for _, own in coordinates.groupby("parametrization", sort=False) for row in _of(own)
    ]
    table = pd.DataFrame(rows)
    for name, own in table.groupby("parametrization"):
        wrong = (own["verdict"] == FAILS) & (own["quantity"] == "update")
        # The head comes after all of them.
        if (wrong & (own["layer"] != "logits")).any():
            follows = (table["parametrization"] == name) & (table["quantity"] == "change")
            table.loc[follows & (table["verdict"] != NO_CLAIM), "verdict"] = CANNOT_TELL
    return table


def fits(table: pd.DataFrame) -> bool:
    """Returns whether everything that was judged is as theory says."""
    return bool(table["verdict"].isin([FITS, NO_CLAIM]).all())


def _of(own: pd.DataFrame) -> Iterator[dict[str, object]]:
    name = str(own["parametrization"].iloc[0])
    first, last = own[own["step"] == 0], own[own["step"] == own["step"].max()]
    for quantity, rows, column, layers in (
        ("init", first, "rms", LAYERS),
        ("update", last, "update", (*EMBEDDINGS, *LINEAR)),
        ("change", last, "change", LAYERS),
    ):
        for layer in layers:
            these = rows[rows["layer"] == layer]
            if len(these):
                head = {"parametrization": name, "layer": layer, "quantity": quantity}
                yield head | _verdict(theory_of(name, layer, quantity), these, column)


def _verdict(theory: Theory | None, rows: pd.DataFrame, column: str) -> dict[str, object]:
    found = slopes(rows, column)
    slope, low, high = interval(found)
    return {
        "slope": slope,
        "low": low,
        "high": high,
        "n": len(found),
        "theory": str(theory or NO_CLAIM),
        "verdict": _word(theory, rows[column], slope, low, high),
    }


def _word(theory: Theory | None, values: pd.Series, slope: float, low: float, high: float) -> str:
    if theory is None:
        return NO_CLAIM
    if theory.zero:
        return FITS if (values == 0).all() else FAILS
    if np.isnan(slope) or np.isnan(low):
        return CANNOT_TELL
    least, most = theory.low - TOLERANCE, theory.high + TOLERANCE
    if least <= low and high <= most:
        return FITS
    return FAILS if high < least or low > most else CANNOT_TELL


def slopes(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Returns the slope of log column on log width of every seed and block, shape (n,).

    nan where a value is 0 or isn't finite, or where there is one width.
    """
    found = []
    for _, line in rows.groupby(["seed", "block"]):
        width, value = (line[name].to_numpy(float) for name in ("width", column))
        known = np.isfinite(value).all() and (value > 0).all() and len(set(width)) > 1
        found.append(np.polyfit(np.log(width), np.log(value), 1)[0] if known else np.nan)
    return np.array(found)


def interval(found: np.ndarray) -> tuple[float, float, float]:
    """Returns mean and t interval (coverage LEVEL) of slopes; nan where one isn't there."""
    mean = float(found.mean()) if len(found) else float("nan")
    if len(found) < 2:
        return mean, float("nan"), float("nan")
    half = stats.t.ppf((1 + LEVEL) / 2, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5
    return mean, mean - float(half), mean + float(half)
