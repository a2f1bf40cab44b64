"""What a Run's fields may be: what is of another type is refused, or becomes Python's own."""

from dataclasses import dataclass

import numpy as np
import pytest
from torch import nn

from foretune.models import TransformerConfig
from foretune.tuner.config.optimizer import Optimizer, Schedule
from foretune.tuner.config.override import override
from foretune.tuner.config.run import Run


@dataclass
class Mutable:
    hidden: int = 3

    def build(self):
        return nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: Run(model=TransformerConfig),
            r"model must be a config, got a class; write TransformerConfig\(\)\.",
        ),
        (
            lambda: Run(model=Mutable()),
            r"model must be a frozen dataclass with build\(\), got Mutable\.",
        ),
        (lambda: Run(optimizer=Schedule()), r"optimizer must be a Optimizer, got Schedule.*"),
        (
            lambda: Run(probes=["logits"]),
            r"probes must be a tuple of names, got \['logits'\]; write .*",
        ),
        (lambda: Run(probes="logits"), r"probes must be a tuple of names, got 'logits'; write .*"),
        (lambda: Run(seed=2**63), r"seed must be below 2\^63, got 9223372036854775808\."),
    ],
)
def test_wrong_types(make, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        make()


def test_numpy_numbers_and_lists_become_python_s():
    run = override(
        Run(),
        {
            "optimizer.lr": np.float64(0.01),
            "steps": np.int64(100),
            "optimizer.clip_norm": np.float32(0.5),
            "probes": ["logits"],
        },
    )
    assert repr(run) == repr(
        Run(steps=100, probes=("logits",), optimizer=Optimizer(lr=0.01, clip_norm=0.5))
    )
    with pytest.raises(ValueError, match="steps must be a whole number, got inf"):
        override(Run(), {"steps": float("inf")})
    with pytest.raises(ValueError, match="steps must be a whole number, got nan"):
        override(Run(), {"steps": float("nan")})


def test_a_final_lr_above_the_peak_is_refused():
    with pytest.raises(
        ValueError, match=r"^schedule.final_lr must be at most optimizer.lr, got 1e-05 and 1e-06; "
    ):
        Run(optimizer=Optimizer(lr=1e-6))
    Run(optimizer=Optimizer(lr=1e-6), schedule=Schedule(name="constant"))
    Run(optimizer=Optimizer(lr=1e-5))
