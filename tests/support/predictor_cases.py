"""Histories and contexts that every predictor must bear."""

import numpy as np
import pandas as pd

STEPS = 120


def healthy(steps: int = STEPS, seed: int = 0) -> pd.DataFrame:
    """A run that learns; probes are read every tenth step."""
    rng = np.random.default_rng(seed)
    step = np.arange(steps)
    read = step % 10 == 0
    return pd.DataFrame(
        {
            "step": step,
            "loss": 2 + 3 * (step + 1) ** -0.5 + 0.05 * rng.normal(size=steps),
            "grad_norm": 0.5 + 0.05 * rng.normal(size=steps),
            "max_attention_logit": np.where(read, 5 + 0.01 * step, np.nan),
            "attention_entropy": np.where(read, 3.0, np.nan),
            "sweep_loss": 2 + 3 * (step + 1) ** -0.5,
        }
    )


CONTEXT = {
    "lr": 1e-2,
    "n_params": 37_000,
    "total_steps": 300,
    "loss_at_init": 6.0,
    "reference_loss": 3.35,
    "schedule.warmup_steps": 15,
    "data.sequence_length": 64,
    "model.qk_norm": False,
    "data.name": "stdlib",
}


def broken_histories() -> dict[str, pd.DataFrame]:
    """Histories with something missing or wrong."""
    good = healthy()
    signals = [name for name in good if name != "step"]
    ragged = good.astype(object)
    ragged.loc[5, signals] = None
    ragged.loc[6, "loss"] = "much"
    return {
        "empty": good.iloc[:0],
        "no columns": pd.DataFrame(),
        "one row": good.iloc[:1],
        "two rows": good.iloc[:2],
        "steps alone": good[["step"]],
        "no steps": good[signals],
        "all NaN": good.assign(**dict.fromkeys(signals, np.nan)),
        "NaN to begin with": good.assign(**{n: good[n].where(good.index > 50) for n in signals}),
        "NaN at the end": good.assign(**{n: good[n].where(good.index < 50) for n in signals}),
        "infinite at the end": good.assign(
            **{n: good[n].where(good.index < 119, np.inf) for n in signals}
        ),
        "all infinite": good.assign(**dict.fromkeys(signals, np.inf)),
        "minus infinity": good.assign(**dict.fromkeys(signals, -np.inf)),
        "constant": good.assign(**dict.fromkeys(signals, 2.0)),
        "zero": good.assign(**dict.fromkeys(signals, 0.0)),
        "negative": good.assign(**dict.fromkeys(signals, -1.0)),
        "huge": good.assign(**{n: good[n] * 1e300 for n in signals}),
        "tiny": good.assign(**{n: good[n] * 1e-300 for n in signals}),
        "one step again and again": good.assign(step=7),
        "steps below zero": good.assign(step=good["step"] - 500),
        "objects": ragged,
        "single precision": good.astype(dict.fromkeys(signals, "float32")),
        "another index": good.set_index(np.full(len(good), 3)),
    }


def broken_contexts() -> dict[str, dict[str, object]]:
    """Contexts with something missing or wrong."""
    return {
        "empty": {},
        "the least": {"total_steps": 300},
        **{f"no {name}": {k: v for k, v in CONTEXT.items() if k != name} for name in CONTEXT},
        **{
            f"all {value!r}": dict.fromkeys(CONTEXT, value)
            for value in (None, np.nan, np.inf, 0, -1.0, "a", pd.NA)
        },
    }
