"""What a run lost: the normalised excess e and its two levels, and the penalty in nats.

e = (min(final, reference) - best) / (reference - best): the share that was lost of what there was
to gain. final is the validation loss after the whole schedule; best the lowest that any learning
rate reached under the same conditions; reference the loss of who knows frequencies only (unigram
entropy, class prior), and where that was not recorded the loss at init, which hides small excess.
"""

from typing import Any, Final

import numpy as np
import pandas as pd

DEGRADED: Final = 0.10
"""e above which a run at more than the best learning rate is degraded."""
UNSTABLE: Final = 0.40
"""e above which such a run is unstable: the primary label."""
WORTH: Final = 0.1
"""Nats, not a share: what a missing cure must cost a run, or a learning rate above the best one, to
count; so also the least that a fix must lower the final loss by."""


def excess(final: Any, *, best: Any, reference: Any) -> np.ndarray:
    """Returns e, in 0..1 (and below 0 where a run beats the best mean); NaN where nothing is known.

    All in nats. A run that diverged has the final loss inf, so e = 1; one that was stopped early
    has none, so NaN. ValueError where reference isn't above best: there was nothing to gain.
    """
    final, best, reference = (np.asarray(x, float) for x in (final, best, reference))
    if np.any(reference <= best):
        raise ValueError(
            f"reference must be above best, got {float(np.max(best - reference)):.3g} nats below; "
            f"train longer, or leave this group out."
        )
    return (np.minimum(final, reference) - best) / (reference - best)


def references(cells: pd.DataFrame, given: float | None = None) -> tuple[pd.Series, str]:
    """Returns each run's reference loss, nats, and in words what it is.

    The given one, else the column `reference_loss` where every run has it, else `loss_at_init`.
    """
    if given is not None:
        return pd.Series(float(given), cells.index), f"the given {given:.3g} nats"
    if "reference_loss" in cells and cells["reference_loss"].notna().all():
        return cells["reference_loss"], "the recorded reference loss"
    text = "the loss at init, for want of a reference, which hides small excess"
    return cells["loss_at_init"], text
