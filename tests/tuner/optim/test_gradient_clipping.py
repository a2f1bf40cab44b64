"""Ways to clip gradients, each against its paper's formula written out per tensor in float64."""

import math

import pytest
import torch
from torch import Tensor
from updated_models import by_name, flat_optimizer, gradients

STEPS = 40


def clipped(**fields) -> list[dict[str, Tensor]]:
    """The gradients of each step after clipping; weights stay as they are."""
    optimizer = flat_optimizer(clip_norm=fields.pop("clip_norm", 0.0), **fields)
    found = []
    for grads in spiky(optimizer.flat):
        optimizer.flat.grads.copy_(grads)
        optimizer.clip(1.0)
        found.append(by_name(optimizer.flat, optimizer.flat.grads))
    return found


def spiky(flat) -> list[Tensor]:
    """Gradients of like size, of which every seventh is twenty times as large."""
    parts = gradients(flat, STEPS)
    return [
        g / g.norm() * (20 if t % 7 == 6 else 1 + 0.05 * math.sin(t)) for t, g in enumerate(parts)
    ]


def raw() -> list[dict[str, Tensor]]:
    flat = flat_optimizer().flat
    return [{n: g.double() for n, g in by_name(flat, part).items()} for part in spiky(flat)]


def global_norm(grads: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float((g**2).sum()) for g in grads.values()))


def assert_equal(ours: list[dict[str, Tensor]], theirs: list[dict[str, Tensor]]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        for name, g in other.items():
            torch.testing.assert_close(mine[name].double(), g, rtol=2e-5, atol=1e-9)
    changed = [
        not torch.allclose(other[name], before[name])
        for other, before in zip(theirs, raw(), strict=True)
        for name in other
    ]
    assert any(changed)
    assert not all(changed)


def test_the_global_norm_is_cut_to_its_limit():
    expected = [
        {n: g * min(1.0, 2.0 / global_norm(grads)) for n, g in grads.items()} for grads in raw()
    ]
    assert_equal(clipped(clip_norm=2.0), expected)


def test_agc_holds_a_gradient_against_the_norm_of_its_weights():
    flat = flat_optimizer().flat
    weights = by_name(flat, flat.values)
    expected = [
        {
            n: g * min(1.0, 0.1 * max(float(weights[n].double().norm()), 1e-3) / float(g.norm()))
            for n, g in grads.items()
        }
        for grads in raw()
    ]
    assert_equal(clipped(agc=0.1), expected)


def test_adagc_holds_a_gradient_against_its_own_running_norm():
    """Two steps of warm-up with a global norm of 1, then gamma = 0.98 gamma + 0.02 |g|."""
    gamma: dict[str, float] = {}
    expected = []
    for t, grads in enumerate(raw()):
        own = {}
        for n, g in grads.items():
            if t < 2:
                own[n] = g * min(1.0, 1.0 / global_norm(grads))
                gamma[n] = min(gamma.get(n, math.inf), float(own[n].norm()))
            else:
                own[n] = g * min(1.0, 1.05 * gamma[n] / float(g.norm()))
                gamma[n] = 0.98 * gamma[n] + 0.02 * float(own[n].norm())
        expected.append(own)
    assert_equal(clipped(adagc=1.05), expected)


def test_adagc_lets_a_tensor_go_that_had_no_gradient():
    optimizer = flat_optimizer(clip_norm=0.0, adagc=1.05)
    silent = optimizer.flat.views(optimizer.flat.grads)[0]
    for t, grads in enumerate(spiky(optimizer.flat)[:6]):
        optimizer.flat.grads.copy_(grads)
        if t < 4:
            silent.zero_()
        before = silent.clone()
        optimizer.clip(1.0)
        if t == 4:
            assert torch.equal(silent, before)
    assert float(silent.norm()) > 0


def test_zclip_cuts_an_outlier_to_mean_plus_deviation_times_threshold_squared_over_z():
    """25 steps give the first mean and deviation; then these are 0.97 of the old, 0.03 of new."""
    threshold, first, mean, variance = 2.5, [], 0.0, 0.0
    expected = []
    for grads in raw():
        norm = global_norm(grads)
        scale = 1.0
        if len(first) < 25:
            first.append(norm)
            mean = sum(first) / len(first)
            variance = sum((x - mean) ** 2 for x in first) / len(first)
        else:
            z = (norm - mean) / (math.sqrt(variance) + 1e-6)
            kept = mean + math.sqrt(variance) * threshold**2 / z if z > threshold else norm
            scale = kept / norm
            mean = 0.97 * mean + 0.03 * kept
            variance = 0.97 * variance + 0.03 * (kept - mean) ** 2
        expected.append({n: g * scale for n, g in grads.items()})
    assert_equal(clipped(zclip=threshold), expected)


@pytest.mark.parametrize("field", ["clip_norm", "agc", "adagc", "zclip"])
def test_what_no_gradient_reaches_changes_no_bit(field):
    for mine, grads in zip(clipped(**{field: 1e9}), spiky(flat_optimizer().flat), strict=True):
        kept = by_name(flat_optimizer().flat, grads)
        if field != "adagc":  # Its first steps have a limit of their own.
            assert all(torch.equal(mine[n], kept[n]) for n in kept)
    if field == "adagc":
        assert all(torch.equal(mine[n], kept[n]) for n in kept)


def test_a_norm_beyond_float32_is_clipped_and_only_what_is_not_finite_has_none():
    """As where the embedding of a rare token has decayed to 1e-44 and comes first in a text."""
    for largest, expected in ((1e21, 1e21), (math.inf, math.inf), (math.nan, math.nan)):
        optimizer = flat_optimizer(clip_norm=1.0)
        optimizer.flat.grads.fill_(1e-3)
        optimizer.flat.grads[3] = largest
        norm = optimizer.clip(1.0)
        assert norm == pytest.approx(expected, nan_ok=True)
        if math.isfinite(expected):
            assert float(optimizer.flat.grads.double().norm()) == pytest.approx(1.0)
    optimizer = flat_optimizer(clip_norm=0.0)
    optimizer.flat.grads.fill_(1e21)
    assert optimizer.clip(1.0) == math.inf
