"""Schedules against numpy's straight lines and a cosine."""

import numpy as np
import pytest

from foretune.tuner.config.optimizer import Schedule
from foretune.tuner.optim.lr_schedule import lr_at

STEPS, WARMUP, PEAK, FINAL = 200, 20, 0.3, 1e-3


def rates(name: str, **fields) -> np.ndarray:
    schedule = Schedule(name=name, warmup_steps=WARMUP, final_lr=FINAL, **fields)
    return np.array([lr_at(schedule, peak=PEAK, steps=STEPS, step=t) for t in range(STEPS)])


def corners(*points: tuple[int, float]) -> np.ndarray:
    at, values = zip(*points, strict=True)
    return np.interp(np.arange(STEPS), at, values)


START = (0, PEAK / WARMUP), (WARMUP - 1, PEAK), (WARMUP, PEAK)


def test_linear_falls_from_the_end_of_the_warmup_to_the_last_step():
    np.testing.assert_allclose(rates("linear"), corners(*START, (STEPS - 1, FINAL)))


def test_constant_stays():
    np.testing.assert_allclose(rates("constant"), corners(*START, (STEPS - 1, PEAK)))


@pytest.mark.parametrize(("share", "falling"), [(0.2, 40), (0.1, 20), (0.001, 1)])
def test_wsd_stays_and_falls_in_the_last_share_of_all_steps(share, falling):
    expected = corners(*START, (STEPS - 1 - falling, PEAK), (STEPS - 1, FINAL))
    np.testing.assert_allclose(rates("wsd", decay_share=share), expected)


def test_cosine_is_half_a_turn():
    found = rates("cosine")
    np.testing.assert_allclose(found[: WARMUP + 1], corners(*START)[: WARMUP + 1])
    angle = np.linspace(0, np.pi, STEPS - WARMUP)
    np.testing.assert_allclose(found[WARMUP:], FINAL + (PEAK - FINAL) * (1 + np.cos(angle)) / 2)
