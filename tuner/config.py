"""Run and its parts: one training, complete, frozen and validated at the door.

Whatever changes the numbers is a field here. Override by dotted path with `override`; the same
paths are search-space keys and `--set` arguments.
"""

import math
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import nn

from models import TransformerConfig
from models.quantize import Quantization
from tuner.data import Data
from tuner.image_data import ImageData
from tuner.override import dotted, near, override

__all__ = [
    "PROBES",
    "Loss",
    "ModelConfig",
    "Optimizer",
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


def _number(path: str, value: object, *, low: float, open_low: bool = False) -> None:
    # Not numpy's: torch refuses to load them from a checkpoint, and their repr is another run's.
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(f"{path} must be a finite number, got {value!r}; write it like 3e-3.")
    if value < low or (open_low and value == low):  # type: ignore[operator]
        rule = f"above {low:g}" if open_low else f"{low:g} or more"
        raise ValueError(f"{path} must be {rule}, got {value!r}.")


def _whole(path: str, value: object, *, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{path} must be a whole number, got {value!r}.")
    if value < low:
        raise ValueError(f"{path} must be {low} or more, got {value}.")


def _one_of(path: str, value: object, names: tuple[str, ...]) -> None:
    if value not in names:
        raise ValueError(
            f"{path} must be one of {', '.join(names)}, got {value!r}.{near(str(value), names)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """AdamW and what surrounds it."""

    name: str = "adamw"
    """Update rule: adamw."""
    lr: float = 1e-2
    """Peak learning rate eta: the schedule's maximum."""
    weight_decay: float = 1e-4
    """Decay lambda."""
    decay: str = "independent"
    """independent: theta loses s_t lambda theta a step; coupled: s_t eta lambda theta."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.95
    """Decay of the second moment."""
    epsilon: float = 1e-8
    """Added to the root of the second moment."""
    clip_norm: float = 1.0
    """Largest global gradient norm; 0 switches clipping off."""

    def __post_init__(self) -> None:
        _one_of("optimizer.name", self.name, ("adamw",))
        _number("optimizer.lr", self.lr, low=0.0, open_low=True)
        _number("optimizer.weight_decay", self.weight_decay, low=0.0)
        _one_of("optimizer.decay", self.decay, ("independent", "coupled"))
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            _number(f"optimizer.{name}", value, low=0.0)
            if value >= 1:
                raise ValueError(f"optimizer.{name} must be below 1, got {value!r}.")
        _number("optimizer.epsilon", self.epsilon, low=0.0)
        _number("optimizer.clip_norm", self.clip_norm, low=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Linear warm-up to the peak, then a fall to `final_lr` at the last step.

    The first step after the warm-up is at the peak: where it is the last one, too (warmup_steps =
    steps - 1), the run ends at the peak.
    """

    name: str = "cosine"
    """Shape of the fall: cosine or constant (no fall)."""
    warmup_steps: int = 10
    """Steps of linear warm-up; 0 starts at the peak."""
    final_lr: float = 1e-5
    """Learning rate of the last step, absolute (source A: 1e-5)."""

    def __post_init__(self) -> None:
        _one_of("schedule.name", self.name, ("cosine", "constant"))
        _whole("schedule.warmup_steps", self.warmup_steps, low=0)
        _number("schedule.final_lr", self.final_lr, low=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Terms added to the training cross-entropy."""

    z_loss: float = 0.0
    """Coefficient c of c log^2 Z; source A uses 1e-4. Never part of the validation loss."""

    def __post_init__(self) -> None:
        _number("loss.z_loss", self.z_loss, low=0.0)


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
    quantization: Quantization = field(default_factory=Quantization)
    """In which number format the model's layers compute."""

    def __post_init__(self) -> None:
        self._check_types()
        _whole("seed", self.seed, low=0)
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2^63, got {self.seed}.")
        for name in ("steps", "batch_size", "micro_batch_size", "eval_every", "telemetry_every"):
            _whole(name, getattr(self, name), low=1)
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size must be a multiple of micro_batch_size, got {self.batch_size} and "
                f"{self.micro_batch_size}; set both."
            )
        _one_of("precision", self.precision, ("float32", "bfloat16"))
        for probe in self.probes:
            _one_of("probes", probe, PROBES)
        if self.schedule.warmup_steps >= self.steps:
            raise ValueError(
                f"schedule.warmup_steps must be below steps, got {self.schedule.warmup_steps} and "
                f"{self.steps}; 5 % of steps is {max(1, self.steps // 20)}."
            )
        if self.schedule.name == "cosine" and self.schedule.final_lr > self.optimizer.lr:
            # The schedule would rise, and independent decay with it: s_t is at most 1.
            raise ValueError(
                f"schedule.final_lr must be at most optimizer.lr, got {self.schedule.final_lr!r} "
                f"and {self.optimizer.lr!r}; lower schedule.final_lr."
            )
        self._check_model_fits_data()

    def _check_types(self) -> None:
        for name, parts in (
            ("data", (Data, ImageData)),
            ("optimizer", (Optimizer,)),
            ("schedule", (Schedule,)),
            ("loss", (Loss,)),
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
