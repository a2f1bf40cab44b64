"""Skip-step against torch's own mean and deviation of the last 128 losses and norms."""

import math

import pytest
import torch
from updated_models import by_name, flat_optimizer, gradients, update

from foretune.tuner.optim.skip_step import SkipStep


def series(seed: int, spikes: tuple[int, ...], n: int = 300) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    values = (2 + 0.1 * torch.randn(n, generator=generator)).tolist()
    return [x + 1.0 if i in spikes else x for i, x in enumerate(values)]


def outliers(values: list[float], sigma: float) -> list[bool]:
    found = []
    for i, value in enumerate(values):
        past = torch.tensor(values[max(0, i - 128) : i], dtype=torch.float64)
        enough = len(past) >= 64
        found.append(bool(enough and value - past.mean() > sigma * past.std()))
    return found


def test_a_step_is_an_outlier_by_its_loss_or_its_norm_and_counts_among_the_past():
    losses, norms = series(0, (100, 101, 250)), series(1, (101, 180))
    skip = SkipStep(6.0)
    ours = [skip.is_outlier(*pair) for pair in zip(losses, norms, strict=True)]
    by_loss, by_norm = outliers(losses, 6.0), outliers(norms, 6.0)
    assert ours == [a or b for a, b in zip(by_loss, by_norm, strict=True)]
    assert [i for i, is_outlier in enumerate(ours) if is_outlier] == [100, 101, 180, 250]
    assert skip.skipped == 4


def test_none_is_skipped_before_64_have_been_seen():
    for spike, skipped in ((63, 0), (64, 1)):
        skip = SkipStep(6.0)
        for loss in series(0, (spike,))[:65]:
            skip.is_outlier(loss, 2.0)
        assert skip.skipped == skipped


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_ends_the_run_instead(value):
    skip = SkipStep(6.0)
    for loss in series(0, ()):
        skip.is_outlier(loss, loss)
    assert not skip.is_outlier(value, 2.0)


def test_a_skipped_step_changes_neither_weights_nor_moments():
    optimizer = flat_optimizer(skip_sigma=6.0)
    (grads,) = gradients(optimizer.flat, 1)
    for t, loss in enumerate(series(0, ())[:64]):
        update(optimizer, grads * (1 + 0.01 * (t % 3)), 0, loss)
    before = by_name(optimizer.flat, optimizer.flat.values)
    moments = {n: x.clone() for n, x in optimizer.rule.state_dict().items()}
    update(optimizer, grads, 0, loss=50.0)
    after = by_name(optimizer.flat, optimizer.flat.values)
    assert all(torch.equal(after[n], before[n]) for n in before)
    assert all(torch.equal(x, moments[n]) for n, x in optimizer.rule.state_dict().items())
    assert not optimizer.flat.grads.any()
    update(optimizer, grads, 0, loss=2.0)
    assert not torch.equal(optimizer.flat.values, torch.cat([x.ravel() for x in before.values()]))
