"""The loss of a bigram model: what a language model can reach that sees one token of context."""

import numpy as np

from foretune.tuner.config.tokens import Data
from foretune.tuner.data.tokens import TokenStream

MOST_TOKENS = 20_000_000
"""Training tokens that are counted."""


def bigram_loss(data: Data) -> float:
    """Returns a bigram model's loss on the validation windows of a text, nats per token.

    P(b | a) = (n(a, b) + P(b)) / (n(a) + 1) with counts n of the training tokens and
    P(b) = (n(b) + 1) / (N + V), V the vocabulary: a pseudo-count of one, spread as tokens are.
    Raises ValueError where the data isn't there.
    """
    stream = TokenStream(data, batch_size=1)
    tokens = np.asarray(stream.corpus.train[:MOST_TOKENS], dtype=np.int64)
    v = data.vocab_size
    singles = np.bincount(tokens[:-1], minlength=v)
    unigram = (singles + 1) / (len(tokens) - 1 + v)
    pairs, counts = np.unique(tokens[:-1] * v + tokens[1:], return_counts=True)
    first, second = (part.numpy().ravel() for part in stream.validation)
    wanted = first * v + second
    at = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    seen = np.where(pairs[at] == wanted, counts[at], 0)
    return float(-np.log((seen + unigram[second]) / (singles[first] + 1)).mean())
