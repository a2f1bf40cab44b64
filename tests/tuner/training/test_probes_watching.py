"""Watching changes nothing, adds micro-batches up and never loses a value that isn't finite."""

import math

import pytest
import torch
from probed_models import build, tokens, watch
from torch import Tensor, nn

from foretune.models import Tap
from foretune.tuner.optim.flat_parameters import FlatParameters
from foretune.tuner.training.losses import cross_entropy
from foretune.tuner.training.probes import Probes


def test_watching_changes_no_bit_of_the_output_and_ends_with_its_block():
    model, probes = build()
    with torch.no_grad():
        plain = model(tokens())
        with probes.watching():
            watched = model(tokens())
        columns = probes.columns()
        after = model(tokens(seed=9))
    assert torch.equal(plain, watched)
    assert not torch.equal(plain, after)
    # The pass after the block left no reading and no hook.
    assert probes.columns() == columns
    assert not any(tap._forward_hooks for tap in model.modules() if isinstance(tap, Tap))


def test_hooks_are_gone_even_when_the_pass_breaks():
    model, probes = build()
    with pytest.raises(IndexError), probes.watching():
        model(torch.full((1, 12), 40))
    assert not any(tap._forward_hooks for tap in model.modules() if isinstance(tap, Tap))


def test_watching_changes_no_bit_of_the_gradients():
    grads = []
    for watched in (False, True):
        model, probes = build()
        if watched:
            with probes.watching():
                cross_entropy(model(tokens()), tokens(seed=1)).backward()
        else:
            cross_entropy(model(tokens()), tokens(seed=1)).backward()
        grads.append(probes.flat.grads.clone())
    assert torch.equal(*grads)


def test_micro_batches_give_the_largest_maximum_and_the_mean_of_means():
    model, probes = build()
    first, second = tokens(seed=1), tokens(seed=2)
    parts = [watch(model, probes, batch) for batch in (first, second)]
    both = watch(model, probes, first, second)
    whole = watch(model, probes, torch.cat((first, second)))
    for name in ("max_attention_logit", "max_attention_logit_layer1"):
        assert both[name] == max(p[name] for p in parts)
        assert both[name] == pytest.approx(whole[name], abs=1e-5)
    for name in ("attention_entropy", "log_z_mean"):
        assert both[name] == pytest.approx((parts[0][name] + parts[1][name]) / 2, abs=1e-6)
        assert both[name] == pytest.approx(whole[name], abs=1e-5)


@pytest.mark.parametrize("broken_layer", [0, 1, 2])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reading_that_is_not_finite_is_not_lost(broken_layer, value):
    model, probes = build()
    with torch.no_grad():
        model.blocks[broken_layer].attention.qkv.weight[0] = value
    columns = watch(model, probes, tokens())
    assert not math.isfinite(columns[f"max_attention_logit_layer{broken_layer}"])
    assert not math.isfinite(columns["max_attention_logit"])
    assert not math.isfinite(columns["attention_entropy"])
    # Not the logits: over 12 keys torch's fused attention returns 0 for a query that is nan.
    for layer in range(broken_layer):
        assert math.isfinite(columns[f"max_attention_logit_layer{layer}"])


def test_one_bad_micro_batch_among_good_ones_is_not_lost():
    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, 1)
            self.tap = Tap("logits")

        def forward(self, x: Tensor) -> None:
            self.tap(x)

    model = Logits()
    probes = Probes(model, FlatParameters(model), ())
    good, bad = torch.zeros(2, 3), torch.full((2, 3), math.nan)
    for batches in ((good, bad), (bad, good)):
        columns = watch(model, probes, *batches)
        assert math.isnan(columns["log_z_mean"])
        assert math.isnan(columns["logits_rms"])


def test_a_nan_in_one_gradient_shows_in_its_kind_alone():
    model, probes = build()
    cross_entropy(model(tokens()), tokens(seed=1)).backward()
    model.blocks[1].mlp.mlp_in.weight.grad[0, 0] = math.nan
    broken = {name for name, v in probes.gradients().items() if not math.isfinite(v)}
    assert broken == {"grad_rms_mlp_in"}


def test_a_probe_without_a_tap_is_refused_in_one_sentence():
    model = nn.Sequential(nn.Embedding(40, 40))
    flat = FlatParameters(model)
    with pytest.raises(
        ValueError,
        match=r"^probes must each have a tap in the model, got none of kind attention, logits; "
        r"add models.Tap\('attention'\) where the tensor is, or take it out of probes.$",
    ):
        Probes(model, flat, ("logits", "attention"))
    assert Probes(model, flat, ()).columns() == {}
