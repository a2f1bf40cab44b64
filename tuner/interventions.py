"""Named changes meant to alter stability: each a function Run -> Run.

The mechanism is a typed field where it acts; an intervention only names a setting of it. To add
one, write a function here and a line in `INTERVENTIONS`.
"""

from collections.abc import Callable

from tuner.config import Run, override


def qk_layernorm(run: Run) -> Run:
    """LayerNorm on q and k of every head, which bounds the attention logits."""
    return override(run, {"model.qk_norm": True})


def z_loss(run: Run) -> Run:
    """Adds 1e-4 log^2 Z to the training loss, which holds the output logits near zero."""
    return override(run, {"loss.z_loss": 1e-4})


def long_warmup(run: Run) -> Run:
    """Warm-up over a quarter of the steps instead of a twentieth."""
    return override(run, {"schedule.warmup_steps": max(1, run.steps // 4)})


def no_warmup(run: Run) -> Run:
    """Starts at the peak learning rate."""
    return override(run, {"schedule.warmup_steps": 0})


def coupled_decay(run: Run) -> Run:
    """Weight decay 0.1 times the learning rate, PyTorch's default form, instead of independent."""
    return override(run, {"optimizer.decay": "coupled", "optimizer.weight_decay": 0.1})


def no_decay(run: Run) -> Run:
    """No weight decay."""
    return override(run, {"optimizer.weight_decay": 0.0})


def no_clipping(run: Run) -> Run:
    """No limit on the gradient norm."""
    return override(run, {"optimizer.clip_norm": 0.0})


def small_epsilon(run: Run) -> Run:
    """AdamW epsilon 1e-15, so that small gradients still make full updates."""
    return override(run, {"optimizer.epsilon": 1e-15})


INTERVENTIONS: dict[str, Callable[[Run], Run]] = {
    "qk-layernorm": qk_layernorm,
    "z-loss": z_loss,
    "long-warmup": long_warmup,
    "no-warmup": no_warmup,
    "coupled-decay": coupled_decay,
    "no-decay": no_decay,
    "no-clipping": no_clipping,
    "small-epsilon": small_epsilon,
}
"""Interventions by name."""
