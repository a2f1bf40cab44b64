"""A refreshed grid serves until the next refresh, and never once it is known to be out of date."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from foretune.models import TransformerConfig
from foretune.models.blocks.layers import Linear
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.formats import Ternary
from foretune.models.quantization.layers import quantized_layers, refresh
from foretune.models.quantization.replace import quantize
from foretune.tuner.optim.flat_parameters import FlatParameters

torch.set_num_threads(1)

TERNARY = Quantization(format="ternary")


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(Linear(16, 32), nn.Linear(32, 8))
    quantize(model, TERNARY, where=lambda name, module: True)
    return model


X = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))


def fresh(model: nn.Module) -> torch.Tensor:
    """The output of a copy, which has computed nothing beforehand."""
    return copy.deepcopy(model)(X)


def counting(model, monkeypatch) -> list[int]:
    calls = [0]
    original = Ternary.levels

    def counted(self, weight, scale):
        calls[0] += 1
        return original(self, weight, scale)

    monkeypatch.setattr(Ternary, "levels", counted)
    return calls


def test_without_a_refresh_every_pass_sees_the_weights_as_they_are(model):
    flat = FlatParameters(model)
    for mode in (True, False):
        model.train(mode)
        before = model(X)
        flat.values.mul_(-1.5)
        assert torch.equal(model(X), fresh(model))
        assert not torch.equal(model(X), before)


def test_a_refreshed_grid_is_shared_by_micro_batches(model, monkeypatch):
    calls = counting(model, monkeypatch)
    for training in (True, False):
        model.train(training)
        refresh(model, 1.0)
        calls[0] = 0
        shared = [model(X) for _ in range(3)]
        assert calls[0] == 0
        assert all(torch.equal(y, fresh(model)) for y in shared)


def test_a_flat_buffer_shows_at_the_next_refresh(model):
    """The trainer's updates don't touch the parameters' version; it calls refresh after each."""
    flat = FlatParameters(model)
    refresh(model, 1.0)
    for _ in range(3):
        version = model[0].weight._version
        model(X).square().sum().backward()
        flat.values.add_(flat.grads, alpha=-0.1)
        flat.grads.zero_()
        assert model[0].weight._version == version
        refresh(model, 1.0)
        assert torch.equal(model(X), fresh(model))


def sgd_step(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(X).square().sum().backward()
    optimizer.step()


def other_state(model):
    return {n: torch.randn_like(t) for n, t in model.state_dict().items()}


@pytest.mark.parametrize(
    "change",
    [
        sgd_step,
        lambda m: m.load_state_dict(other_state(m)),
        lambda m: m.load_state_dict(other_state(m), assign=True),
        lambda m: FlatParameters(m).values.mul_(-2),
        lambda m: m.to(torch.float64).to(torch.float32),
        lambda m: (m.eval(), [p.data.mul_(-2) for p in m.parameters()]),
        lambda m: (m.eval(), m.train(), m.eval(), [p.data.mul_(-2) for p in m.parameters()]),
        lambda m: nn.init.normal_(m[0].weight),
        lambda m: setattr(m[0], "weight", nn.Parameter(torch.randn(32, 16))),
    ],
)
def test_what_the_layer_can_tell_drops_the_refreshed_grid(model, change):
    model.train()
    refresh(model, 1.0)
    change(model)
    assert torch.equal(model(X), fresh(model))


def test_strength_is_set_by_refresh_and_zero_is_full_precision(model):
    plain = F.linear(F.linear(X, model[0].weight), model[1].weight, model[1].bias)
    refresh(model, 0.0)
    torch.testing.assert_close(model(X), plain)
    refresh(model, 0.5)
    assert torch.equal(model(X), fresh(model))
    assert not torch.allclose(model(X), plain)
    refresh(model, 1.0)
    assert [layer.grid.strength for layer in quantized_layers(model).values()] == [1.0, 1.0]


def test_grids_are_neither_parameters_nor_buffers(model):
    keys = list(model.state_dict())
    assert keys == ["0.weight", "1.weight", "1.bias"]
    refresh(model, 1.0)
    assert list(model.state_dict()) == keys
    assert not list(model.buffers())


def test_a_state_dict_round_trip_gives_the_same_bits_and_crosses_to_full_precision(model):
    plain = nn.Sequential(Linear(16, 32), nn.Linear(32, 8))
    plain.load_state_dict(model.state_dict())
    quantize(plain, TERNARY, where=lambda name, module: True)
    assert torch.equal(plain(X), model(X))


def test_copies_are_independent_and_a_pickle_keeps_no_grid(model):
    refresh(model, 1.0)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(X), model(X))
    with torch.no_grad():
        twin[0].weight.mul_(-1)
    assert not torch.equal(twin(X), model(X))
    file = io.BytesIO()
    torch.save(model, file)
    size = file.tell()
    refresh(model, 0.0)
    file = io.BytesIO()
    torch.save(model, file)
    assert abs(file.tell() - size) < 100
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(X), model(X))


def test_inference_mode_serves(model):
    with torch.inference_mode():
        refresh(model, 1.0)
        y = model(X)
        made_here = nn.Sequential(Linear(16, 8))
        quantize(made_here, TERNARY, where=lambda name, module: True)
        refresh(made_here, 1.0)
        assert torch.equal(made_here(X), made_here(X))
    assert torch.equal(y, model(X))


def test_a_model_without_quantized_layers_is_refused():
    with pytest.raises(ValueError, match="call quantize first"):
        refresh(nn.Sequential(nn.Linear(2, 2)), 1.0)


def test_a_ternary_lm_learns_under_the_flat_trainer():
    """20 steps on one batch: the loss falls, and the trained grid equals a fresh one."""
    torch.manual_seed(0)
    model = TransformerConfig(width=32, depth=1).build()
    quantize(model, TERNARY)
    flat = FlatParameters(model)
    optimizer = torch.optim.Adam([flat.values], lr=1e-2)
    tokens = torch.randint(0, 256, (4, 65))
    losses = []
    for _ in range(20):
        refresh(model, 1.0)
        logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        losses.append(float(loss.detach()))
        loss.backward()
        flat.values.grad = flat.grads
        optimizer.step()
        flat.grads.zero_()
    assert losses[-1] < losses[0] - 1.5
