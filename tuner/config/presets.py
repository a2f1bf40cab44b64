"""Named complete runs. A preset is a function of its length, from which warm-up and validation
follow; everything else is a value to override.
"""

from collections.abc import Callable

from foretune.models import ConvNetConfig, TorchvisionConfig, TransformerConfig, ViTConfig
from foretune.tuner.config.images import ImageData
from foretune.tuner.config.optimizer import Optimizer, Schedule
from foretune.tuner.config.override import override
from foretune.tuner.config.run import PROBES, Loss, ModelConfig, Run
from foretune.tuner.config.tokens import Data

WARMUP_SHARE = 0.05
"""Warm-up as a share of steps: source A's 5e3 of 1e5."""


def lm_tiny(steps: int = 200) -> Run:
    """Byte LM on the standard library's sources: 3 blocks, head_dim 16, context 64, batch 8.

    Seconds on one CPU core up to width 64. Shows the attention-logit instability from width 16.
    """
    return Run(
        steps=steps,
        eval_every=max(1, steps // 4),
        telemetry_every=max(1, min(10, steps // 20)),
        probes=PROBES,
        model=TransformerConfig(width=64, depth=3, head_dim=16, max_positions=64),
        schedule=_schedule(steps),
    )


def lm_llama(steps: int = 200) -> Run:
    """The byte LM with Llama's block (RMSNorm, SwiGLU), width 256: ternary, it exports to GGUF.

    GGUF's ternary types want rows of a multiple of 256. About 60 ms a step on one CPU core.
    """
    return override(
        lm_tiny(steps), {"model.width": 256, "model.norm": "rmsnorm", "model.mlp": "swiglu"}
    )


def lm_paper(steps: int = 100_000) -> Run:
    """Source A's language model (section 2.1): C4, T5's vocabulary, 256 x 512 tokens a step, bf16.

    z-loss 1e-4, qk-layernorm, head_dim 64 (the source gives none), width 512, 6 blocks. For GPUs.
    """
    positions, vocabulary, batch = 512, 32101, 256
    return Run(
        steps=steps,
        batch_size=batch,
        micro_batch_size=32,
        eval_every=max(1, steps // 20),
        telemetry_every=max(1, steps // 1000),
        precision="bfloat16",
        probes=PROBES,
        model=TransformerConfig(
            width=512,
            depth=6,
            head_dim=64,
            qk_norm=True,
            max_positions=positions,
            vocab_size=vocabulary,
        ),
        data=Data(
            name="c4",
            tokenizer="google-t5/t5-base",
            tokens=steps * batch * positions,
            vocab_size=vocabulary,
            sequence_length=positions,
        ),
        schedule=_schedule(steps),
        loss=Loss(z_loss=1e-4),
    )


def vit_tiny(steps: int = 600) -> Run:
    """Image transformer on cluttered digits (32x32): 3 blocks, width 64, head_dim 16, patches of 4.

    Batch 32; the LM's schedule and optimizer.
    """
    return _vision(ViTConfig(width=64, depth=3, head_dim=16, patch_size=4), steps)


def cnn_tiny(steps: int = 600) -> Run:
    """Residual CNN on cluttered digits (32x32): three stages of one block, width 16."""
    return _vision(ConvNetConfig(width=16, depth=1), steps)


def resnet_tiny(steps: int = 600) -> Run:
    """torchvision's ResNet-18 at an eighth of its width on cluttered digits (32x32)."""
    return _vision(TorchvisionConfig(name="resnet18", width_multiplier=0.12), steps)


def mobilenet_tiny(steps: int = 600) -> Run:
    """torchvision's MobileNetV2 at a quarter of its width on cluttered digits (32x32)."""
    return _vision(TorchvisionConfig(name="mobilenet_v2", width_multiplier=0.25), steps)


def _vision(model: ModelConfig, steps: int) -> Run:
    return Run(
        steps=steps,
        batch_size=32,
        micro_batch_size=32,
        eval_every=max(1, steps // 4),
        telemetry_every=max(1, min(20, steps // 20)),
        probes=("logits",),
        model=model,
        data=ImageData(name="cluttered", augment=True),
        optimizer=Optimizer(lr=3e-3),
        schedule=_schedule(steps),
    )


def _schedule(steps: int) -> Schedule:
    return Schedule(warmup_steps=max(1, round(WARMUP_SHARE * steps)) if steps > 1 else 0)


PRESETS: dict[str, Callable[..., Run]] = {
    "lm-tiny": lm_tiny,
    "lm-llama": lm_llama,
    "lm-paper": lm_paper,
    "vit-tiny": vit_tiny,
    "cnn-tiny": cnn_tiny,
    "resnet-tiny": resnet_tiny,
    "mobilenet-tiny": mobilenet_tiny,
}
"""Presets by name."""
