"""The config of quantization: formats of weights and inputs, layers, and strength over a run.

Formats are in `models.quantization.formats`, layers in `models.quantization.layers`, where they go
in `models.quantization.replace`.
"""

from dataclasses import dataclass

from foretune.models.quantization.formats import (
    CHOICES,
    FORMATS,
    SETTINGS,
    Format,
    check_choice,
    check_group_size,
    formats_with,
)

ACTIVATIONS = ("token", "tensor", "off")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """In which number format a model's layers compute; `format="none"` is full precision."""

    format: str = "none"
    """Format of the weights: none, ternary (1.58 bits), binary, int8, int4, fp8 (e4m3)."""
    scale: str = "mean"
    """What a ternary scale is made from: mean or median of |W|."""
    granularity: str = "tensor"
    """Which weights share a scale: tensor, row (one output) or group."""
    group_size: int = 64
    """Neighbours in a row that share a scale under granularity=group; divides every row."""
    scale_dtype: str = "float16"
    """Type whose values a ternary or binary scale takes: float16, which a GGUF file stores exactly,
    or float32, the sources' own; other formats' scales are float32."""
    activations: str = "token"
    """Inputs of the quantized layers: int8 (fp8: e4m3) with a scale per token (per image before a
    convolution) or per tensor (then a batch's parts depend on each other), or off."""
    strength: float = 1.0
    """Share lambda of the rounding that is applied: x + lambda (Q(x) - x); 0 is full precision."""
    strength_warmup: float = 0.0
    """Share of all steps over which lambda rises linearly from 0, once quantization starts."""
    start: float = 0.0
    """Share of all steps trained in full precision before quantization starts."""
    norm: bool = False
    """LayerNorm without parameters before each of these layers; with format=none the control."""
    embedding: bool = False
    """Quantize embeddings too (weights only)."""
    head: bool = False
    """Quantize the head too: the last layer, of child head, heads, fc or classifier if there."""
    first_conv: bool = False
    """Quantize the first convolution and a `patch_embedding` too."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("format", ("none", *FORMATS)),
            *CHOICES.items(),
            ("activations", ACTIVATIONS),
        ):
            check_choice(f"quantization.{name}", getattr(self, name), choices)
        for name in ("norm", "embedding", "head", "first_conv"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise ValueError(f"quantization.{name} must be True or False, got {value!r}.")
        for name in ("strength", "strength_warmup", "start"):
            _check_share(name, getattr(self, name))
        check_group_size("quantization.group_size", self.group_size)
        scaled = formats_with("scale")
        if self.scale != "mean" and self.format not in ("none", *scaled):
            raise ValueError(
                f"quantization.scale={self.scale} serves format={' or '.join(scaled)}, got "
                f"format={self.format}; use scale=mean, which is ignored there."
            )
        if self.start + self.strength_warmup > 1:
            raise ValueError(
                f"quantization.start and quantization.strength_warmup must add up to 1 at most, "
                f"got {self.start} and {self.strength_warmup}: full strength would come after the "
                f"end."
            )

    @property
    def active(self) -> bool:
        """Whether a model is changed at all."""
        return self.format != "none" or self.norm

    @property
    def words(self) -> str:
        """The number format in words: `none`, `ternary median`, `int8`."""
        scaled = self.format in formats_with("scale")
        return f"{self.format} {self.scale}" if scaled else self.format

    def weight_format(self) -> Format | None:
        """Returns the format of the weights, None for full precision."""
        if self.format == "none":
            return None
        return FORMATS[self.format].having({name: getattr(self, name) for name in SETTINGS})

    def activation_format(self) -> Format | None:
        """Returns the format of the layers' inputs, None for full precision."""
        if self.format == "none" or self.activations == "off":
            return None
        granularity = "row" if self.activations == "token" else "tensor"
        return FORMATS[FORMATS[self.format].activations].sharing(granularity)

    def strength_at(self, step: int, steps: int) -> float:
        """Returns lambda for update `step` (from 0) of `steps`; at `steps` it is `strength`.

        0 for the first start x steps updates (rounded); then, over strength_warmup x steps
        updates, linear from 0.
        """
        begin, ramp = round(self.start * steps), round(self.strength_warmup * steps)
        if self.format == "none" or step < begin:
            return 0.0
        return self.strength * (min(1.0, (step - begin) / ramp) if ramp else 1.0)


def _check_share(name: str, value: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:
        raise ValueError(f"quantization.{name} must be a number from 0 to 1, got {value!r}.")
