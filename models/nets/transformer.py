"""The decoder language model of source A (Wortsman et al. 2023, section 2.1) as a frozen config.

By default pre-LayerNorm, rotary positions, no biases, GELU MLP of 4 D, final LayerNorm, head not
tied to the embedding; mechanisms are fields of `models.blocks.block_config.BlockConfig`. With
norm=rmsnorm and mlp=swiglu it is the Llama block, which other programs can load.
Shapes: B sequences, T positions, N = B T rows, D width, V vocabulary.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from foretune.models.blocks.attention_core import turn_table
from foretune.models.blocks.attention_variants import cap
from foretune.models.blocks.block import Block
from foretune.models.blocks.block_config import BlockConfig
from foretune.models.blocks.checks import check_one_of, check_positive, check_whole
from foretune.models.blocks.layers import MLPS, NORMS, Linear, Tap, scale_linears


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig(BlockConfig):
    """A complete description of one decoder LM; `build()` makes it."""

    kind: ClassVar[str] = "transformer"

    vocab_size: int = 256
    """Number of different tokens; 256 for bytes."""
    max_positions: int = 64
    """Longest context, in tokens."""
    norm: str = "layernorm"
    """Norm of the residual stream: layernorm or rmsnorm (qk_norm is a LayerNorm either way)."""
    mlp: str = "gelu"
    """gelu: hidden width 4 D; swiglu: gated, hidden width 3 D."""
    init_gain: float = 1.0
    """Factor on the initial weights of the blocks' linear layers; source A: 1."""

    def __post_init__(self) -> None:
        BlockConfig.__post_init__(self)
        check_whole(self, ("vocab_size", "max_positions"))
        check_one_of(self, "norm", NORMS)
        check_one_of(self, "mlp", MLPS)
        check_positive(self, "init_gain")
        if self.head_dim % 2:
            raise ValueError(
                f"model.head_dim must be even, since rotary positions turn pairs, "
                f"got {self.head_dim}; use {self.head_dim + 1}."
            )
        if self.sigma_reparam and self.init_gain != 1:
            raise ValueError(
                f"model.init_gain must be 1 with model.sigma_reparam, which divides it out again, "
                f"got {self.init_gain}; set model.init_gain=1."
            )

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
            Block(config, turn_T3HP, layer=layer, norm=config.norm, mlp=config.mlp)
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
        logits_NV = cap(self.head(self.final_norm(x_ND)), self.config.logit_softcap)
        (logits_BTV,) = self.tap(logits_NV.view(batch, positions, -1))
        return logits_BTV
