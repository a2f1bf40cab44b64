"""Named changes meant to alter stability: each a function Run -> Run.

The mechanism is a typed field where it acts (the model, the optimizer, the loss, the schedule, the
parametrisation); an intervention only names a setting of it. To add one, write a function here and
a line in `INTERVENTIONS`. Source A is Wortsman et al. 2023 (arXiv 2309.14322).
"""

from collections.abc import Callable

from foretune.tuner.config.override import override
from foretune.tuner.config.run import Run


def qk_layernorm(run: Run) -> Run:
    """LayerNorm on q and k of every head, which bounds the attention logits (source A)."""
    return override(run, {"model.qk_norm": True})


def qk_layernorm_whole(run: Run) -> Run:
    """LayerNorm on all of q and all of k at once, before they are split into heads."""
    return override(run, {"model.qk_norm": True, "model.qk_norm_span": "width"})


def qkv_norm(run: Run) -> Run:
    """LayerNorm on q, k and v of every head (Rybakov et al. 2024)."""
    return override(run, {"model.qk_norm": True, "model.v_norm": True})


def attention_softcap(run: Run) -> Run:
    """Attention logits x become 50 tanh(x / 50) (Gemma 2)."""
    return override(run, {"model.attention_softcap": 50.0})


def logit_softcap(run: Run) -> Run:
    """Output logits x become 30 tanh(x / 30) (Gemma 2)."""
    return override(run, {"model.logit_softcap": 30.0})


def pointwise_attention(run: Run) -> Run:
    """Squared ReLU of the attention logits over the number of positions, instead of a softmax."""
    return override(run, {"model.attention": "relu2"})


def linear_head_scale(run: Run) -> Run:
    """Attention logits q k / head_dim instead of q k / sqrt(head_dim)."""
    return override(run, {"model.attention_scale": "linear"})


def zero_query(run: Run) -> Run:
    """The query projection starts at zero (part of full muP)."""
    return override(run, {"model.zero_query": True})


def kappa_normalisation(run: Run) -> Run:
    """q and k of every head get RMS sqrt(10): logits of at most 10 sqrt(head_dim) (source A)."""
    return override(run, {"model.kappa": 10.0})


def sigma_reparam(run: Run) -> Run:
    """Each linear layer of the blocks computes with gain W / sigma(W) (Zhai et al. 2023)."""
    return override(run, {"model.sigma_reparam": True})


def rmsnorm(run: Run) -> Run:
    """RMSNorm instead of LayerNorm in the residual stream."""
    return override(run, {"model.norm": "rmsnorm"})


def post_norm(run: Run) -> Run:
    """norm(x + f(x)) instead of x + f(norm(x)), as in the first Transformer."""
    return override(run, {"model.norm_placement": "post"})


def reordered_norm(run: Run) -> Run:
    """x + norm(f(x)) instead of x + f(norm(x)) (OLMo 2)."""
    return override(run, {"model.norm_placement": "reordered"})


def depth_scaling(run: Run) -> Run:
    """Residual branches, and the epsilon of their parameters, times 2 / depth (CompleteP)."""
    return override(run, {"parametrization.base_depth": 2})


def mup_simple(run: Run) -> Run:
    """Learning rate of every linear layer times base_width / width."""
    return override(run, {"parametrization.name": "mup-simple"})


def mup_intermediate(run: Run) -> Run:
    """mup-simple, and a head that starts at sqrt(base fan-in) / fan-in."""
    return override(run, {"parametrization.name": "mup-intermediate"})


def mup_full(run: Run) -> Run:
    """mup-intermediate, attention logits over head_dim, and queries that start at zero."""
    return override(run, {"parametrization.name": "mup-full"})


def z_loss(run: Run) -> Run:
    """Adds 1e-4 log^2 Z to the training loss, which holds the output logits near zero."""
    return override(run, {"loss.z_loss": 1e-4})


def long_warmup(run: Run) -> Run:
    """Warm-up over a quarter of the steps instead of a twentieth."""
    return override(run, {"schedule.warmup_steps": max(1, run.steps // 4)})


def no_warmup(run: Run) -> Run:
    """Starts at the peak learning rate."""
    return override(run, {"schedule.warmup_steps": 0})


def linear_schedule(run: Run) -> Run:
    """Falls from the peak along a line instead of a cosine."""
    return override(run, {"schedule.name": "linear"})


def wsd_schedule(run: Run) -> Run:
    """Stays at the peak and falls along a line in the last fifth (warm-up, stable, decay)."""
    return override(run, {"schedule.name": "wsd"})


def constant_schedule(run: Run) -> Run:
    """Stays at the peak to the end."""
    return override(run, {"schedule.name": "constant"})


def coupled_decay(run: Run) -> Run:
    """Weight decay 0.1 times the learning rate, PyTorch's default form, instead of independent."""
    return override(run, {"optimizer.decay": "coupled", "optimizer.weight_decay": 0.1})


def no_decay(run: Run) -> Run:
    """No weight decay."""
    return override(run, {"optimizer.weight_decay": 0.0})


def decay_matrices(run: Run) -> Run:
    """Weight decay on matrices alone: not on gains."""
    return override(run, {"optimizer.decay_on": "matrices"})


def decay_linear(run: Run) -> Run:
    """Weight decay on linear layers alone: neither on gains nor on embeddings (OLMo 2)."""
    return override(run, {"optimizer.decay_on": "linear"})


def small_epsilon(run: Run) -> Run:
    """AdamW epsilon 1e-15, so that small gradients still make full updates."""
    return override(run, {"optimizer.epsilon": 1e-15})


def large_epsilon(run: Run) -> Run:
    """AdamW epsilon 1e-6, which damps the updates of small gradients (source A: it diverges)."""
    return override(run, {"optimizer.epsilon": 1e-6})


def no_clipping(run: Run) -> Run:
    """No limit on the gradient norm."""
    return override(run, {"optimizer.clip_norm": 0.0})


def agc(run: Run) -> Run:
    """Each tensor's gradient norm is at most 0.1 of its weight norm (Brock et al. 2021)."""
    return override(run, {"optimizer.clip_norm": 0.0, "optimizer.agc": 0.1})


def adagc(run: Run) -> Run:
    """Each tensor's gradient norm is at most 1.05 of its own running mean (AdaGC)."""
    return override(run, {"optimizer.clip_norm": 0.0, "optimizer.adagc": 1.05})


def zclip(run: Run) -> Run:
    """Gradient norms more than 2.5 sigma above their running mean are clipped (ZClip)."""
    return override(run, {"optimizer.clip_norm": 0.0, "optimizer.zclip": 2.5})


def update_clipping(run: Run) -> Run:
    """Learning rate over max(1, RMS_t) of each tensor (StableAdamW, Wortsman et al. 2023b)."""
    return override(run, {"optimizer.update_clip": 1.0})


def rms_scaled_lr(run: Run) -> Run:
    """Learning rate times the RMS of each tensor (Adafactor); it then means a relative change."""
    return override(run, {"optimizer.lr_scale": "rms"})


def low_qk_lr(run: Run) -> Run:
    """The query and key projections learn at a tenth of the rate."""
    return override(run, {"optimizer.qk_lr": 0.1})


def qk_clip(run: Run) -> Run:
    """Heads whose largest logit is above 100 have W_q and W_k scaled down (Kimi K2)."""
    return override(run, {"optimizer.qk_clip": 100.0})


def skip_step(run: Run) -> Run:
    """Skips updates whose loss or gradient norm is 6 sigma above the last 128 (OLMo-core)."""
    return override(run, {"optimizer.skip_sigma": 6.0})


def atan2(run: Run) -> Run:
    """AdamW without epsilon: atan2(m, sqrt(v)) instead of m / (sqrt(v) + epsilon)."""
    return override(run, {"optimizer.name": "adamw-atan2"})


def muon(run: Run) -> Run:
    """Orthogonalised momentum for the blocks' matrices, AdamW for the rest (Muon)."""
    return override(run, {"optimizer.name": "muon"})


INTERVENTIONS: dict[str, Callable[[Run], Run]] = {
    "qk-layernorm": qk_layernorm,
    "qk-layernorm-whole": qk_layernorm_whole,
    "qkv-norm": qkv_norm,
    "attention-softcap": attention_softcap,
    "logit-softcap": logit_softcap,
    "pointwise-attention": pointwise_attention,
    "linear-head-scale": linear_head_scale,
    "zero-query": zero_query,
    "kappa-normalisation": kappa_normalisation,
    "sigma-reparam": sigma_reparam,
    "rmsnorm": rmsnorm,
    "post-norm": post_norm,
    "reordered-norm": reordered_norm,
    "depth-scaling": depth_scaling,
    "mup-simple": mup_simple,
    "mup-intermediate": mup_intermediate,
    "mup-full": mup_full,
    "z-loss": z_loss,
    "long-warmup": long_warmup,
    "no-warmup": no_warmup,
    "linear-schedule": linear_schedule,
    "wsd-schedule": wsd_schedule,
    "constant-schedule": constant_schedule,
    "coupled-decay": coupled_decay,
    "no-decay": no_decay,
    "decay-matrices": decay_matrices,
    "decay-linear": decay_linear,
    "small-epsilon": small_epsilon,
    "large-epsilon": large_epsilon,
    "no-clipping": no_clipping,
    "agc": agc,
    "adagc": adagc,
    "zclip": zclip,
    "update-clipping": update_clipping,
    "rms-scaled-lr": rms_scaled_lr,
    "low-qk-lr": low_qk_lr,
    "qk-clip": qk_clip,
    "skip-step": skip_step,
    "atan2": atan2,
    "muon": muon,
}
"""Interventions by name."""
