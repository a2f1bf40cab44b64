"""RKSP, re-implemented from its paper: a risk score from one forward pass at initialisation.

Residual Koopman spectral profiling (Kim et al. 2026, PMLR v337, arXiv 2602.22988; no code was
found). Between the outputs of neighbouring blocks the best linear map of whitened token states is
fitted; the mass M~1 is the share of its eigenvalues near the unit circle. High is risky.

It sees neither learning rate nor optimizer: one seed and architecture, one score.
Shapes: D width, N token states.
"""

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg
import torch
from torch import Tensor

from foretune.models import MODELS, Tap
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.layers import refresh
from foretune.models.quantization.replace import quantize
from foretune.tuner.config.images import SOURCES, ImageData
from foretune.tuner.config.run import Run
from foretune.tuner.config.tokens import Data
from foretune.tuner.data.streams import open_stream

EPSILON = 1e-5
"""Added to the covariance's diagonal, and to the denominator of the residual."""
STATES = 2048
"""Token states N that are read."""
NEAR_ONE = (0.90, 1.05)
"""Moduli that count as near the unit circle."""


def scores_of(trials: pd.DataFrame) -> pd.Series:
    """Returns the score of every row of a trials table, indexed by run_id; once per start."""
    rows = trials.to_dict("records")
    return pd.Series({trial["run_id"]: _score_once(run_of(trial)) for trial in rows}, dtype=float)


def run_of(trial: Mapping[str, Any]) -> Run:
    """Returns the run of a row of a trials table as far as its start goes: no optimizer, no rate.

    Fields that the table doesn't have, younger than it, have their defaults.
    """
    data = ImageData if trial["data.name"] in SOURCES else Data
    return Run(
        seed=int(trial["seed"]),
        batch_size=int(trial["batch_size"]),
        micro_batch_size=int(trial["batch_size"]),
        model=_part(MODELS[trial["model.kind"]], "model", trial),
        data=_part(data, "data", trial),
        quantization=_part(Quantization, "quantization", trial),
    )


def _part(config: type, group: str, trial: Mapping[str, Any]) -> Any:
    found = {f.name: (trial.get(f"{group}.{f.name}"), type(f.default)) for f in fields(config)}
    # A column of whole numbers with a gap is one of floats; a gap is another kind's field.
    return config(**{k: of(v) for k, (v, of) in found.items() if v is not None and v == v})


@cache
def _score_once(run: Run) -> float:
    return score(run)


def score(run: Run, *, tau: float = np.inf) -> float:
    """Returns M~1 in 0..1, the mean over pairs of neighbouring blocks; NaN for fewer than 2 blocks.

    Weights and batches are those that the run begins with. The embedding's output is left out: it
    takes too few distinct states to determine a map. Modes whose residual is above tau are dropped;
    the paper's 0.1 leaves few or none from fan-in starts, and it doesn't say what it did then, so
    all are kept by default. Raises ValueError for convolutional networks.
    """
    states = block_outputs(run)
    pairs = [mass_near_one(x, y, tau=tau) for x, y in pairwise(states)]
    return float(np.mean(pairs)) if pairs else float("nan")


@torch.no_grad()
def block_outputs(run: Run) -> list[np.ndarray]:
    """Returns the states (D, N), float64, after every block of a run that hasn't begun."""
    model = _fresh_model(run)
    seen: dict[int, list[Tensor]] = {}

    def watch(tap: Tap, tensors: tuple[Tensor, ...]) -> None:
        if tap.kind == "block_output":
            seen.setdefault(tap.layer, []).append(_rows(tensors[0]))

    for module in model.modules():
        if isinstance(module, Tap):
            module.watch = watch
    stream = open_stream(run.data, batch_size=run.batch_size)
    step = 0
    # One pass over 2,048 states in the run's own batches, which don't see each other.
    while step == 0 or any(sum(map(len, parts)) < STATES for parts in seen.values()):
        model(stream.batch(run.seed, step)[0])
        step += 1
    states = (torch.cat(seen[layer])[:STATES] for layer in sorted(seen))
    return [state_ND.T.double().numpy() for state_ND in states]


def _fresh_model(run: Run) -> torch.nn.Module:
    """The model with the weights that the run begins with; torch's generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        model = run.model.build()
        quantized = quantize(model, run.quantization)
    model.eval()
    if quantized:
        refresh(model, run.quantization.strength_at(0, run.steps))
    return model


def _rows(x: Tensor) -> Tensor:
    """The states (N, D) of a tap: (..., D)."""
    if x.ndim > 3:
        raise ValueError(
            f"RKSP must have a stream of token states (..., D), got {tuple(x.shape)}; it is about "
            f"transformers, so leave convolutional networks out."
        )
    return x.flatten(0, -2)


def mass_near_one(x_DN: np.ndarray, y_DN: np.ndarray, *, tau: float = np.inf) -> float:
    """Returns the share of modes of A = Y~ pinv(X~) whose |eigenvalue| is in 0.90..1.05.

    Both are centred and whitened by X's covariance. Modes with a relative residual
    |u* (Y~ - lambda X~)| / |u* X~| above tau are dropped, u the left eigenvector; where none is
    left all count.
    """
    x_DN, y_DN = (z - z.mean(axis=1, keepdims=True) for z in (x_DN, y_DN))
    covariance_DD = x_DN @ x_DN.T / x_DN.shape[1] + EPSILON * np.eye(len(x_DN))
    variance_D, axes_DD = np.linalg.eigh(covariance_DD)
    whiten_DD = axes_DD / np.sqrt(variance_D) @ axes_DD.T
    x_DN, y_DN = whiten_DD @ x_DN, whiten_DD @ y_DN
    a_DD = y_DN @ np.linalg.pinv(x_DN)
    lambda_D, left_DD = scipy.linalg.eig(a_DD, left=True, right=False)
    ux_DN, uy_DN = (left_DD.conj().T @ z for z in (x_DN, y_DN))
    apart_D = np.linalg.norm(uy_DN - lambda_D[:, None] * ux_DN, axis=1)
    kept = apart_D <= tau * (np.linalg.norm(ux_DN, axis=1) + EPSILON)
    modulus = np.abs(lambda_D)
    near = (modulus >= NEAR_ONE[0]) & (modulus <= NEAR_ONE[1])
    return float(near[kept].mean() if kept.any() else near.mean())
