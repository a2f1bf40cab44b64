"""How likely runs are to be unstable, as `predict` says: laws fitted once, and asked of many runs.

A prediction also reads losses, labels and twins, which is most of its cost and is the same for
every size and learning rate.
"""

import math
from functools import cache

import pandas as pd

from foretune.analysis.across_scale.arguments import check_question
from foretune.analysis.across_scale.family_laws import absence_of, choose_family, law_of
from foretune.analysis.across_scale.words import reason_of, why_unknown
from foretune.analysis.laws.critical_law import CriticalLaw
from foretune.analysis.measures.critical_lr import critical_table
from foretune.analysis.measures.signal import SIGNAL
from foretune.analysis.measures.thresholds import ATTENTION_LOGIT
from foretune.analysis.records.load import Records

LEVEL = 0.9


class Chances:
    """The laws of a sweep's families, of the attention logit and its own danger line."""

    def __init__(self, records: Records):
        self._records = records
        self._law = cache(self._fit)
        self._table = cache(self._cross)

    def unstable(self, family: str, n_params: float, lr: float) -> tuple[float | None, str]:
        """Returns the probability that a run is unstable, None where there is no law, and why.

        family is a label, as `predict` takes it. Raises ValueError for one that isn't there.
        """
        check_question(n_params=n_params, lr=lr, threshold=ATTENTION_LOGIT.value, level=LEVEL)
        law, absent = self._law(family)
        critical = law.predict(n_params, LEVEL)
        known = math.isfinite(critical.median)
        probability = law.probability_unstable(n_params, lr) if known else None
        return probability, why_unknown(critical, ATTENTION_LOGIT, absent) or reason_of(
            critical, law, ATTENTION_LOGIT, SIGNAL, lr, probability, LEVEL
        )

    def _fit(self, label: str) -> tuple[CriticalLaw, str]:
        """The law of a family, and why there is none."""
        family = choose_family(self._records, None, label)
        absent = absence_of(self._records, family)
        return law_of(self._table(), family, LEVEL, absent=absent), absent

    def _cross(self) -> pd.DataFrame:
        """Where each family, size and seed meets the danger line."""
        trials, telemetry = self._records.trials, self._records.telemetry
        return critical_table(trials, telemetry, threshold=ATTENTION_LOGIT.value)
