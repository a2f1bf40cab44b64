"""The answer to one question of a source: a table, what it shows, and a figure."""

from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from foretune.analysis.claims.claim import Claim


@dataclass(frozen=True, slots=True)
class Answer:
    """A figure's numbers, sentences and drawing."""

    table: pd.DataFrame
    """The numbers that are drawn, tidy."""
    claims: list[Claim]
    """What the source found, each held against these runs."""
    figure: Figure
