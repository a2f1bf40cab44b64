import math

import numpy as np
import predictor_cases
import pytest
from predictor_cases import CONTEXT, healthy

from benchmarks.science.peers import (
    PEERS,
    StabilityGuardSpike,
    TrainscopeCrossing,
    TrainscopeCusum,
    absence,
)

HISTORIES = predictor_cases.broken_histories()


def test_what_is_not_installed_says_how_to_get_it():
    assert "pip install" in absence("no_such_package_anywhere")
    for package in ("trainscope", "stabilityguard"):
        assert absence(package) == ""  # Both belong to the tests' own environment.


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES.keys())
@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS.keys())
def test_every_history_gets_an_answer(peer, history):
    forecast = peer(history, CONTEXT)
    assert forecast.reason
    assert math.isnan(forecast.probability) == (forecast.status != "ok")


def test_a_falling_loss_is_no_alarm_and_a_rising_one_is():
    falling = healthy(200)
    assert TrainscopeCusum()(falling, CONTEXT).probability == 0
    rising = falling.assign(loss=falling["loss"] + np.where(falling["step"] > 150, 5, 0))
    assert TrainscopeCusum()(rising, CONTEXT).probability >= 0.5


def test_a_rising_gradient_norm_is_crossed_and_a_jump_is_a_spike():
    calm = healthy(200)
    jump = calm.assign(grad_norm=calm["grad_norm"] * np.where(calm["step"] > 150, 30, 1))
    assert TrainscopeCrossing()(jump, CONTEXT).probability == 1
    assert StabilityGuardSpike()(jump, CONTEXT).probability > 0.5
    assert StabilityGuardSpike()(calm, CONTEXT).probability < 0.5
