"""Whether runs recorded a signal at all, and what follows where they did not."""

from typing import Final

import pandas as pd

from analysis.schema import UNFINISHED

WITHOUT_ATTENTION: Final = ("convnet", "torchvision")
"""Values of `model.kind` that have no attention."""
SIGNAL_WORDS: Final = {"max_attention_logit": "attention logits"}


def absence(trials: pd.DataFrame, telemetry: pd.DataFrame, signal: str) -> str:
    """Why these runs have no critical learning rate of this kind, a clause; empty where they may.

    Empty as well where no run has ended with telemetry: such runs may still record the signal.
    """
    ended = trials[~trials["outcome"].isin([UNFINISHED, "failed"])]
    own = telemetry[telemetry["run_id"].isin(ended["run_id"])]
    if own.empty or (signal in own and own[signal].notna().any()):
        return ""
    words = SIGNAL_WORDS.get(signal, signal)
    text = (
        f"no run recorded {signal}: a model without {words} has no critical learning rate of this "
        "kind"
    )
    kinds = set(ended["model.kind"]) if "model.kind" in ended else set()
    if kinds and kinds <= set(WITHOUT_ATTENTION):
        return text
    return f"{text}; a model of your own that has them shows them through a tap"
