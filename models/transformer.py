"""The decoder language model of source A (Wortsman et al. 2023, section 2.1) as a frozen config.

Pre-LayerNorm, rotary positions, no biases, GELU MLP of 4 D, final LayerNorm, head not tied to the
embedding. With norm=rmsnorm and mlp=swiglu it is the Llama block, which other programs can load.
Shapes: B sequences, T positions, N = B T rows, D width, V vocabulary.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from models.attend import turn_table
from models.fields import check_flag, check_heads, check_positive, check_whole
from models.layers import MLPS, NORMS, Block, Linear, Tap, scale_linears


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """A complete description of one decoder LM; `build()` makes it."""

    kind: ClassVar[str] = "transformer"

    width: int = 64
    """Width D of the residual stream; the ladder's dial. A multiple of head_dim."""
    depth: int = 3
    """Number of blocks."""
    head_dim: int = 16
    """Dimension K of a head; heads = width / head_dim. Even (rotary turns pairs)."""
    vocab_size: int = 256
    """Number of different tokens; 256 for bytes."""
    max_positions: int = 64
    """Longest context, in tokens."""
    qk_norm: bool = False
    """LayerNorm on q and k of every head (qk-layernorm), which bounds the attention logits."""

    norm: str = "layernorm"
    """Norm of the residual stream: layernorm or rmsnorm (qk_norm is a LayerNorm either way)."""
    mlp: str = "gelu"
    """gelu: hidden width 4 D; swiglu: gated, hidden width 3 D."""
    init_gain: float = 1.0
    """Factor on the initial weights of the blocks' linear layers; source A: 1."""

    def __post_init__(self) -> None:
        check_whole(self, ("width", "depth", "head_dim", "vocab_size", "max_positions"))
        check_flag(self, "qk_norm")
        for name, names in (("norm", NORMS), ("mlp", MLPS)):
            if getattr(self, name) not in names:
                raise ValueError(
                    f"model.{name} must be one of {', '.join(names)}, got {getattr(self, name)!r}."
                )
        check_positive(self, "init_gain")
        if self.head_dim % 2:
            raise ValueError(
                f"model.head_dim must be even, since rotary positions turn pairs, "
                f"got {self.head_dim}; use {self.head_dim + 1}."
            )
        check_heads(self.width, self.head_dim)

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        return self.width // self.head_dim

    def build(self) -> "Transformer":
        """Returns the model with fresh weights drawn from torch's global generator."""
        return Transformer(self)


class Transformer(nn.Module):
    """Decoder LM: tokens (B, T) to logits (B, T, V), in nats."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        turn_T3HP = turn_table(config.heads, config.head_dim, config.max_positions)
        self.blocks = nn.ModuleList(
            Block(
                config.width,
                turn_T3HP,
                head_dim=config.head_dim,
                qk_norm=config.qk_norm,
                layer=layer,
                norm=config.norm,
                mlp=config.mlp,
            )
            for layer in range(config.depth)
        )
        if config.init_gain != 1:
            scale_linears(self.blocks, config.init_gain)
        self.final_norm = NORMS[config.norm](config.width)
        self.head = Linear(config.width, config.vocab_size)
        self.tap = Tap("logits")

    def forward(self, tokens_BT: Tensor) -> Tensor:
        batch, positions = tokens_BT.shape
        x_ND = self.embedding(tokens_BT.flatten())
        for block in self.blocks:
            x_ND = block(x_ND, batch)
        logits_NV = self.head(self.final_norm(x_ND))
        (logits_BTV,) = self.tap(logits_NV.view(batch, positions, -1))
        return logits_BTV
