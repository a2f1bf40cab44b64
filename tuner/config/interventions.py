"""Interventions by name: changes of a run that are meant to alter its stability.

To add one, write a row here: `foretune list interventions`, the space `interventions`, the table in
docs/interventions.md (`python -m benchmarks.science.intervention_page --write`) and the tests
follow. Source A is Wortsman et al. 2023 (arXiv 2309.14322).
"""

from foretune.tuner.config.intervention import Intervention, Own
from foretune.tuner.config.run import Run


def long_warmup(run: Run) -> dict[str, int]:
    """`schedule.warmup_steps` = `steps` / 4"""
    return {"schedule.warmup_steps": max(1, run.steps // 4)}


INTERVENTIONS: dict[str, Intervention] = {
    "qk-layernorm": Intervention(
        "LayerNorm on q and k of every head, which bounds the attention logits (source A).",
        sets={"model.qk_norm": True},
        acts="forward",
        source="source A, 3.1.1",
    ),
    "qk-layernorm-whole": Intervention(
        "LayerNorm on all of q and all of k at once, before they are split into heads.",
        sets={"model.qk_norm": True, "model.qk_norm_span": "width"},
        acts="forward",
        source="source A, E.8",
    ),
    "qkv-norm": Intervention(
        "LayerNorm on q, k and v of every head (Rybakov et al. 2024).",
        sets={"model.qk_norm": True, "model.v_norm": True},
        acts="forward",
        source="Rybakov et al. 2024",
    ),
    "attention-softcap": Intervention(
        "Attention logits x become 50 tanh(x / 50) (Gemma 2).",
        sets={"model.attention_softcap": 50.0},
        acts="forward",
        source="Gemma 2",
        zero={"model.attention_softcap": 0.0},
    ),
    "logit-softcap": Intervention(
        "Output logits x become 30 tanh(x / 30) (Gemma 2).",
        sets={"model.logit_softcap": 30.0},
        acts="forward",
        source="Gemma 2",
        zero={"model.logit_softcap": 0.0},
    ),
    "pointwise-attention": Intervention(
        "Squared ReLU of the attention logits over the number of positions, instead of a softmax.",
        sets={"model.attention": "relu2"},
        acts="forward",
        source="source A, E.11",
    ),
    "linear-head-scale": Intervention(
        "Attention logits q k / head_dim instead of q k / sqrt(head_dim).",
        sets={"model.attention_scale": "linear"},
        acts="forward",
        source="source A, E.6",
    ),
    "zero-query": Intervention(
        "The query projection starts at zero (part of full muP).",
        sets={"model.zero_query": True},
        acts="start",
        source="muP",
    ),
    "kappa-normalisation": Intervention(
        "q and k of every head get RMS sqrt(10): logits of at most 10 sqrt(head_dim) (source A).",
        sets={"model.kappa": 10.0},
        acts="forward",
        source="source A, 3.3",
        zero={"model.kappa": 0.0},
    ),
    "sigma-reparam": Intervention(
        "Each linear layer of the blocks computes with gain W / sigma(W) (Zhai et al. 2023).",
        sets={"model.sigma_reparam": True},
        acts="forward",
        source="Zhai et al. 2023",
    ),
    "rmsnorm": Intervention(
        "RMSNorm instead of LayerNorm in the residual stream.",
        sets={"model.norm": "rmsnorm"},
        acts="forward",
        source="Zhang and Sennrich 2019",
    ),
    "post-norm": Intervention(
        "norm(x + f(x)) instead of x + f(norm(x)), as in the first Transformer.",
        sets={"model.norm_placement": "post"},
        acts="forward",
        source="Vaswani et al. 2017",
    ),
    "reordered-norm": Intervention(
        "x + norm(f(x)) instead of x + f(norm(x)) (OLMo 2).",
        sets={"model.norm_placement": "reordered"},
        acts="forward",
        source="OLMo 2",
    ),
    "depth-scaling": Intervention(
        "Residual branches, and the epsilon of their parameters, times 2 / depth (CompleteP).",
        sets={"parametrization.base_depth": 2},
        acts="forward",
        source="CompleteP",
        zero={"parametrization.base_depth": Own("model.depth")},
    ),
    "mup-simple": Intervention(
        "Learning rate of every linear layer times base_width / width.",
        sets={"parametrization.name": "mup-simple"},
        acts="update",
        source="source A, 3.2.4",
        zero={"parametrization.base_width": Own("model.width")},
    ),
    "mup-intermediate": Intervention(
        "mup-simple, and a head that starts at sqrt(base fan-in) / fan-in.",
        sets={"parametrization.name": "mup-intermediate"},
        acts="start",
        source="source A, E.5",
        zero={"parametrization.base_width": Own("model.width")},
    ),
    "mup-full": Intervention(
        "mup-intermediate, attention logits over head_dim, and queries that start at zero.",
        sets={"parametrization.name": "mup-full"},
        acts="start",
        source="source A, E.5",
    ),
    "z-loss": Intervention(
        "Adds 1e-4 log^2 Z to the training loss, which holds the output logits near zero.",
        sets={"loss.z_loss": 1e-4},
        acts="gradient",
        source="PaLM; source A, 3.1.2",
        zero={"loss.z_loss": 0.0},
    ),
    "long-warmup": Intervention(
        "Warm-up over a quarter of the steps instead of a twentieth.",
        sets=long_warmup,
        acts="update",
        source="source A, 3.2.1",
        zero={"schedule.warmup_steps": Own("schedule.warmup_steps")},
    ),
    "no-warmup": Intervention(
        "Starts at the peak learning rate.",
        sets={"schedule.warmup_steps": 0},
        acts="update",
        source="source A, 3.2.1",
        zero={"schedule.warmup_steps": Own("schedule.warmup_steps")},
    ),
    "linear-schedule": Intervention(
        "Falls from the peak along a line instead of a cosine.",
        sets={"schedule.name": "linear"},
        acts="later",
    ),
    "wsd-schedule": Intervention(
        "Stays at the peak and falls along a line in the last fifth (warm-up, stable, decay).",
        sets={"schedule.name": "wsd"},
        acts="later",
    ),
    "constant-schedule": Intervention(
        "Stays at the peak to the end.",
        sets={"schedule.name": "constant"},
        acts="later",
    ),
    "coupled-decay": Intervention(
        "Weight decay 0.1 times the learning rate, PyTorch's default form, instead of independent.",
        sets={"optimizer.decay": "coupled", "optimizer.weight_decay": 0.1},
        acts="update",
        source="source A, 3.2.2",
        zero={
            "optimizer.decay": Own("optimizer.decay"),
            "optimizer.weight_decay": Own("optimizer.weight_decay"),
        },
    ),
    "no-decay": Intervention(
        "No weight decay.",
        sets={"optimizer.weight_decay": 0.0},
        acts="update",
        source="source A, 3.1.2",
        zero={"optimizer.weight_decay": Own("optimizer.weight_decay")},
    ),
    "decay-matrices": Intervention(
        "Weight decay on matrices alone: not on gains.",
        sets={"optimizer.decay_on": "matrices"},
        acts="update",
    ),
    "decay-linear": Intervention(
        "Weight decay on linear layers alone: neither on gains nor on embeddings (OLMo 2).",
        sets={"optimizer.decay_on": "linear"},
        acts="update",
        source="OLMo 2",
    ),
    "small-epsilon": Intervention(
        "AdamW epsilon 1e-15, so that small gradients still make full updates.",
        sets={"optimizer.epsilon": 1e-15},
        acts="update",
        source="source A, 3.4",
        zero={"optimizer.epsilon": Own("optimizer.epsilon")},
    ),
    "large-epsilon": Intervention(
        "AdamW epsilon 1e-6, which damps the updates of small gradients (source A: it diverges).",
        sets={"optimizer.epsilon": 1e-6},
        acts="update",
        source="source A, E.15",
        zero={"optimizer.epsilon": Own("optimizer.epsilon")},
    ),
    "no-clipping": Intervention(
        "No limit on the gradient norm.",
        sets={"optimizer.clip_norm": 0.0},
        acts="update",
        zero={"optimizer.clip_norm": Own("optimizer.clip_norm")},
    ),
    "agc": Intervention(
        "Each tensor's gradient norm is at most 0.1 of its weight norm (Brock et al. 2021).",
        sets={"optimizer.clip_norm": 0.0, "optimizer.agc": 0.1},
        acts="update",
        source="Brock et al. 2021",
        zero={"optimizer.agc": 0.0, "optimizer.clip_norm": Own("optimizer.clip_norm")},
    ),
    "adagc": Intervention(
        "Each tensor's gradient norm is at most 1.05 of its own running mean (AdaGC).",
        sets={"optimizer.clip_norm": 0.0, "optimizer.adagc": 1.05},
        acts="later",
        source="Wang et al. 2025",
        zero={"optimizer.adagc": 0.0, "optimizer.clip_norm": Own("optimizer.clip_norm")},
    ),
    "zclip": Intervention(
        "Gradient norms more than 2.5 sigma above their running mean are clipped (ZClip).",
        sets={"optimizer.clip_norm": 0.0, "optimizer.zclip": 2.5},
        acts="update",
        source="Kumar et al. 2025",
        zero={"optimizer.zclip": 0.0, "optimizer.clip_norm": Own("optimizer.clip_norm")},
        provoked={"optimizer.zclip": 0.2},
    ),
    "update-clipping": Intervention(
        "Learning rate over max(1, RMS_t) of each tensor (StableAdamW, Wortsman et al. 2023b).",
        sets={"optimizer.update_clip": 1.0},
        acts="later",
        source="StableAdamW",
        zero={"optimizer.update_clip": 0.0},
    ),
    "rms-scaled-lr": Intervention(
        "Learning rate times the RMS of each tensor (Adafactor); it then means a relative change.",
        sets={"optimizer.lr_scale": "rms"},
        acts="update",
        source="source A, E.14",
    ),
    "low-qk-lr": Intervention(
        "The query and key projections learn at a tenth of the rate.",
        sets={"optimizer.qk_lr": 0.1},
        acts="update",
        source="arXiv 2511.21377",
        zero={"optimizer.qk_lr": 1.0},
    ),
    "qk-clip": Intervention(
        "Heads whose largest logit is above 100 have W_q and W_k scaled down (Kimi K2).",
        sets={"optimizer.qk_clip": 100.0},
        acts="update",
        source="Kimi K2",
        zero={"optimizer.qk_clip": 0.0},
        provoked={"optimizer.qk_clip": 0.1},
    ),
    "skip-step": Intervention(
        "Skips updates whose loss or gradient norm is 6 sigma above the last 128 (OLMo-core).",
        sets={"optimizer.skip_sigma": 6.0},
        acts="later",
        source="OLMo-core",
        zero={"optimizer.skip_sigma": 0.0},
        provoked={"optimizer.skip_sigma": 0.5},
    ),
    "atan2": Intervention(
        "AdamW without epsilon: atan2(m, sqrt(v)) instead of m / (sqrt(v) + epsilon).",
        sets={"optimizer.name": "adamw-atan2"},
        acts="update",
        source="Everett et al. 2024",
    ),
    "muon": Intervention(
        "Orthogonalised momentum for the blocks' matrices, AdamW for the rest (Muon).",
        sets={"optimizer.name": "muon"},
        acts="update",
        source="Jordan et al. 2024; torch",
    ),
}
"""Interventions by name."""
