"""Small models with pluggable stability mechanisms; torch only."""

from models.ladder import Counts, at_size, count, count_module, size_of
from models.layers import Tap
from models.transformer import Transformer, TransformerConfig

MODELS = {"transformer": TransformerConfig}
"""Model kinds by name: frozen configs with `build()`."""

__all__ = [
    "MODELS",
    "Counts",
    "Tap",
    "Transformer",
    "TransformerConfig",
    "at_size",
    "count",
    "count_module",
    "size_of",
]
