"""Run and its parts: one training, complete, frozen and validated at the door.

Whatever changes the numbers is a field here. Override by dotted path with `override`; the same
paths are search-space keys and `--set` arguments.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import nn

from foretune.models import MODELS, TransformerConfig
from foretune.models.blocks.block_config import BlockConfig
from foretune.models.nets.parametrize import Parametrization
from foretune.models.quantization.config import Quantization
from foretune.tuner.config.checks import check_flag, check_number, check_one_of, check_whole
from foretune.tuner.config.images import ImageData
from foretune.tuner.config.optimizer import Optimizer, Schedule
from foretune.tuner.config.override import dotted, near, override
from foretune.tuner.config.tokens import Data

__all__ = [
    "PROBES",
    "Loss",
    "ModelConfig",
    "Optimizer",
    "Parametrization",
    "Run",
    "Schedule",
    "dotted",
    "near",
    "override",
]

PROBES = ("attention", "block_output", "logits")
"""Kinds of tap that a probe can read; see `models.Tap`."""


@runtime_checkable
class ModelConfig(Protocol):
    """A frozen dataclass that builds a module: tokens (B, T) or images in, logits (..., V) out."""

    def build(self) -> nn.Module:
        """Returns the module with fresh weights drawn from torch's global generator."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Terms added to the training cross-entropy."""

    z_loss: float = 0.0
    """Coefficient c of c log^2 Z; source A uses 1e-4. Never part of the validation loss."""

    def __post_init__(self) -> None:
        check_number("loss.z_loss", self.z_loss, low=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training of one model under one complete frozen config."""

    seed: int = 0
    """Seed of weights and batches."""
    steps: int = 200
    """Optimizer updates."""
    batch_size: int = 8
    """Sequences or images an update sees."""
    micro_batch_size: int = 8
    """Sequences or images a forward pass sees; gradients add up to batch_size, which it divides."""
    eval_every: int = 50
    """Steps between validations (and reports to a scheduler); the first is at step 0."""
    telemetry_every: int = 10
    """Steps between full probe readings."""
    telemetry_detail: bool = False
    """Whether readings are by layer, too, and tell more of logits, queries and keys."""
    precision: str = "float32"
    """Arithmetic of the forward pass: float32 or bfloat16 (autocast)."""
    probes: tuple[str, ...] = ()
    """Taps that must be there, by kind; empty reads whatever taps the model has."""
    model: ModelConfig = field(default_factory=TransformerConfig)
    """Model: a frozen config with `build()`."""
    data: Data | ImageData = field(default_factory=Data)
    """Where tokens or images come from."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """Update rule."""
    schedule: Schedule = field(default_factory=Schedule)
    """Learning rate over time."""
    loss: Loss = field(default_factory=Loss)
    """Auxiliary losses."""
    parametrization: Parametrization = field(default_factory=Parametrization)
    """How initial values and learning rates follow the model's size."""
    quantization: Quantization = field(default_factory=Quantization)
    """In which number format the model's layers compute."""

    def __post_init__(self) -> None:
        self._check_types()
        check_whole("seed", self.seed, low=0)
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2^63, got {self.seed}.")
        for name in ("steps", "batch_size", "micro_batch_size", "eval_every", "telemetry_every"):
            check_whole(name, getattr(self, name), low=1)
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size must be a multiple of micro_batch_size, got {self.batch_size} and "
                f"{self.micro_batch_size}; set both."
            )
        check_flag("telemetry_detail", self.telemetry_detail)
        check_one_of("precision", self.precision, ("float32", "bfloat16"))
        for probe in self.probes:
            check_one_of("probes", probe, PROBES)
        self._check_schedule()
        self._check_attention()
        self._check_model_fits_data()

    def _check_types(self) -> None:
        for name, parts in (
            ("data", (Data, ImageData)),
            ("optimizer", (Optimizer,)),
            ("schedule", (Schedule,)),
            ("loss", (Loss,)),
            ("parametrization", (Parametrization,)),
            ("quantization", (Quantization,)),
        ):
            value = getattr(self, name)
            if not isinstance(value, parts):
                names = " or ".join(part.__name__ for part in parts)
                raise ValueError(f"{name} must be a {names}, got {value!r}.")
        model = self.model
        if isinstance(model, type):
            raise ValueError(f"model must be a config, got a class; write {model.__name__}().")
        parameters = getattr(model, "__dataclass_params__", None)
        if parameters is None or not parameters.frozen or not isinstance(model, ModelConfig):
            raise ValueError(
                f"model must be a frozen dataclass with build(), got {type(model).__name__}."
            )
        if not isinstance(self.probes, tuple):
            raise ValueError(
                f"probes must be a tuple of names, got {self.probes!r}; write ('logits',)."
            )

    def _check_schedule(self) -> None:
        schedule, warmup = self.schedule, self.schedule.warmup_steps
        if warmup >= self.steps:
            raise ValueError(
                f"schedule.warmup_steps must be below steps, got {warmup} and "
                f"{self.steps}; 5 % of steps is {max(1, self.steps // 20)}."
            )
        falling = schedule.decay_steps(self.steps)
        if schedule.name == "wsd" and warmup + falling > self.steps:
            raise ValueError(
                f"schedule.decay_share must leave room for the warm-up, got "
                f"{schedule.decay_share!r}: {warmup} steps up and {falling} down of {self.steps}; "
                f"set schedule.warmup_steps={self.steps - falling} or lower schedule.decay_share."
            )
        if schedule.name != "constant" and schedule.final_lr > self.optimizer.lr:
            # The schedule would rise, and independent decay with it: s_t is at most 1.
            raise ValueError(
                f"schedule.final_lr must be at most optimizer.lr, got {schedule.final_lr!r} "
                f"and {self.optimizer.lr!r}; lower schedule.final_lr."
            )

    def _check_attention(self) -> None:
        """What needs queries, keys or blocks; users' own models are checked when they are built."""
        optimizer, model = self.optimizer, self.model
        on = {
            "name": optimizer.name == "muon",
            "qk_lr": optimizer.qk_lr != 1,
            "qk_clip": optimizer.qk_clip > 0,
        }
        if type(model) in MODELS.values() and not isinstance(model, BlockConfig):
            for name in (name for name, is_on in on.items() if is_on):
                raise ValueError(
                    f"optimizer.{name} must be {getattr(Optimizer(), name)} for a model without "
                    f"transformer blocks, got {getattr(optimizer, name)!r} for "
                    f"{type(model).__name__}; set optimizer.{name}={getattr(Optimizer(), name)}."
                )
        for name in ("qk_norm", "kappa", "sigma_reparam"):
            if optimizer.qk_clip and getattr(model, name, False):
                raise ValueError(
                    f"optimizer.qk_clip must be 0 with model.{name}, which undoes the scaling of "
                    f"query and key weights, got {optimizer.qk_clip!r}; set optimizer.qk_clip=0."
                )

    def _check_model_fits_data(self) -> None:
        reads_images = hasattr(self.model, "image_size")
        if isinstance(self.data, ImageData):
            if hasattr(self.model, "vocab_size"):
                raise ValueError(
                    f"model must read images for data.name={self.data.name}, got "
                    f"{type(self.model).__name__}, which reads tokens; use a preset like vit-tiny."
                )
            self._check_image_fits(self.data)
        elif reads_images:
            raise ValueError(
                f"data must be images for {type(self.model).__name__}, got the tokens of "
                f"data.name={self.data.name}; set data.name=digits, say."
            )
        else:
            self._check_tokens_fit(self.data)

    def _check_image_fits(self, data: ImageData) -> None:
        for name, needed in (
            ("image_size", data.side),
            ("channels", data.channels),
            ("classes", data.classes),
        ):
            value = getattr(self.model, name, needed)
            if value != needed:
                raise ValueError(
                    f"model.{name} must be {needed} for data.name={data.name}, got {value}; "
                    f"set model.{name}={needed}."
                )

    def _check_tokens_fit(self, data: Data) -> None:
        positions = getattr(self.model, "max_positions", data.sequence_length)
        if positions < data.sequence_length:
            raise ValueError(
                f"model.max_positions must be at least data.sequence_length, got {positions} and "
                f"{data.sequence_length}; set both."
            )
        vocabulary = getattr(self.model, "vocab_size", data.vocab_size)
        if vocabulary < data.vocab_size:
            raise ValueError(
                f"model.vocab_size must be at least data.vocab_size, got {vocabulary} and "
                f"{data.vocab_size}; set both."
            )
