"""Adam-atan2 by its formula, Muon by torch's own optimizers on tensors of their own."""

import math

import pytest
import torch
from torch import nn
from updated_models import (
    CONFIG,
    QKV,
    adam_moments,
    assert_near,
    by_name,
    flat_optimizer,
    gradients,
    lr,
    trajectory,
    transformer,
    updated,
)

from foretune.tuner.optim.flat_parameters import FlatParameters

PEAK, LAMBDA = 3e-2, 0.05


@pytest.mark.parametrize("decay", ["independent", "coupled"])
def test_atan2_of_the_moments_in_place_of_their_ratio(decay):
    def formula(name, theta, g, t, own):
        m, v = adam_moments(own, g, t)
        kept = 1 - lr(1.0 if decay == "independent" else PEAK, t) * LAMBDA
        return theta * kept - lr(PEAK, t) * torch.atan2(m, v.sqrt())

    fields = {"lr": PEAK, "weight_decay": LAMBDA, "clip_norm": 0.0, "decay": decay}
    assert_near(updated(flat_optimizer(name="adamw-atan2", **fields)), trajectory(formula))


def test_atan2_does_not_see_the_gradients_scale():
    def moved(scale: float) -> torch.Tensor:
        optimizer = flat_optimizer(name="adamw-atan2", lr=PEAK, clip_norm=0.0, weight_decay=0.0)
        for t, grads in enumerate(gradients(optimizer.flat)):
            optimizer.flat.grads.copy_(grads * scale)
            optimizer.step(t)
        return optimizer.flat.values.clone()

    torch.testing.assert_close(moved(2.0**-30), moved(1.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("decay", ["independent", "coupled"])
def test_muon_updates_the_blocks_matrices_as_torch_s_and_the_rest_as_adamw(decay):
    """Queries, keys and values are three matrices; others are one each."""
    flat = FlatParameters(transformer())
    whole = by_name(flat, flat.values)
    hidden = {n for n, w in whole.items() if n.startswith("blocks.") and w.ndim == 2}
    parts = {}
    for name, weight in whole.items():
        thirds = weight.chunk(3) if name.endswith(QKV) else (weight,)
        parts |= {(name, i): nn.Parameter(part.clone()) for i, part in enumerate(thirds)}
    lam = LAMBDA / PEAK if decay == "independent" else LAMBDA
    matrices = [p for (name, _), p in parts.items() if name in hidden]
    others = [p for (name, _), p in parts.items() if name not in hidden]
    muon = torch.optim.Muon(
        matrices, lr=PEAK, weight_decay=lam, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(others, lr=PEAK, weight_decay=lam, betas=(0.9, 0.95), eps=1e-8)
    for t, grads in enumerate(gradients(flat), start=1):
        for name, g in by_name(flat, grads).items():
            for i, part in enumerate(g.chunk(3) if name.endswith(QKV) else (g,)):
                parts[name, i].grad = part.clone()
        # torch scales Muon's rate and not its decay, so that both follow the schedule here.
        for optimizer in (muon, adamw):
            optimizer.param_groups[0]["lr"] = lr(PEAK, t)
            optimizer.step()
    theirs = {
        name: torch.cat([p.detach() for (n, _), p in parts.items() if n == name]) for name in whole
    }
    ours = updated(
        flat_optimizer(name="muon", lr=PEAK, weight_decay=LAMBDA, clip_norm=0.0, decay=decay)
    )
    assert_near(ours, theirs)


def test_muon_s_update_has_adamw_s_size():
    """0.2 sqrt(max(R, C)) over sqrt(R C) entries of an orthogonal matrix: an RMS of about 0.2."""
    optimizer = flat_optimizer(name="muon", lr=PEAK, clip_norm=0.0)
    updated(optimizer)
    delta = by_name(optimizer.flat, optimizer.unscaled_update())
    for name in (f"blocks.0.{QKV}", f"blocks.{CONFIG.depth - 1}.mlp.mlp_in.weight"):
        rms = math.sqrt(float((delta[name] ** 2).mean()))
        assert rms == pytest.approx(0.2, rel=0.35)
