"""What a block is: the fields that the language model and the image transformer share."""

from dataclasses import dataclass

from foretune.models.blocks.checks import (
    check_flags,
    check_from_zero,
    check_heads,
    check_one_of,
    check_whole,
)

SPANS = ("head", "width")
"""Numbers that one qk-layernorm normalises together: those of a head, or all of q or k."""
ATTENTIONS = ("softmax", "relu2")
"""How a query weighs its keys."""
SCALES = ("sqrt", "linear")
"""Attention scales by name: 1 / sqrt(head_dim), 1 / head_dim."""
PLACEMENTS = ("pre", "post", "reordered")
"""Where the norms of the residual stream stand; see `models.blocks.block.Block`."""
AXES = ("width", "depth", "joint")
"""What the ladder moves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockConfig:
    """Size and mechanisms of a stack of transformer blocks; the defaults are source A's."""

    width: int = 64
    """Width D of the residual stream, a multiple of head_dim."""
    depth: int = 3
    """Number of blocks."""
    head_dim: int = 16
    """Dimension K of a head; heads = width / head_dim. Even in a language model (rotary turns
    pairs)."""
    ladder: str = "width"
    """What model.size moves: width, depth or joint (both)."""
    qk_norm: bool = False
    """LayerNorm on q and k (qk-layernorm), which bounds the attention logits."""
    qk_norm_span: str = "head"
    """What a qk-layernorm normalises: each head, gains shared across heads; or the whole width,
    before the split into heads, a gain for every number."""
    v_norm: bool = False
    """LayerNorm on every head's v, gains shared across heads; with qk_norm it is the QKV-norm of
    Rybakov et al. 2024."""
    attention: str = "softmax"
    """How a query weighs its keys: softmax, or relu2, the squared ReLU of each logit over the root
    of the number of positions (source A, appendix E.11)."""
    attention_scale: str = "sqrt"
    """Factor on q . k: sqrt for 1 / sqrt(head_dim), linear for 1 / head_dim."""
    zero_query: bool = False
    """Whether query weights start at zero, so that all logits do."""
    attention_softcap: float = 0.0
    """Largest attention logit t: t tanh(logit / t), before the mask (Gemma 2: 50). 0 is off."""
    logit_softcap: float = 0.0
    """Largest output logit t, in the same way (Gemma 2: 30). 0 is off."""
    kappa: float = 0.0
    """Mean square that every head's q and k are scaled to: the logits are forced up (source A,
    section 3.3: a diagnostic). 0 is off."""
    norm_placement: str = "pre"
    """Norms of the residual stream: pre, x + f(norm(x)); post, norm(x + f(x)); reordered,
    x + norm(f(x))."""
    sigma_reparam: bool = False
    """Whether the blocks' linear layers are divided by their largest singular value and multiplied
    by a learned gain (Zhai et al. 2023)."""

    def __post_init__(self) -> None:
        check_whole(self, ("width", "depth", "head_dim"))
        check_flags(self, ("qk_norm", "v_norm", "zero_query", "sigma_reparam"))
        for name, names in (
            ("ladder", AXES),
            ("qk_norm_span", SPANS),
            ("attention", ATTENTIONS),
            ("attention_scale", SCALES),
            ("norm_placement", PLACEMENTS),
        ):
            check_one_of(self, name, names)
        check_from_zero(self, ("attention_softcap", "logit_softcap", "kappa"))
        check_heads(self.width, self.head_dim)
        self._check_together()

    def _check_together(self) -> None:
        if self.qk_norm_span != "head" and not self.qk_norm:
            raise ValueError(
                f"model.qk_norm_span must be head without a qk-layernorm, got "
                f"{self.qk_norm_span}; set model.qk_norm=True, too."
            )
        if self.kappa and self.qk_norm:
            raise ValueError(
                f"model.kappa must be 0 with model.qk_norm, since both set the size of q and k, "
                f"got {self.kappa}; set model.qk_norm=False."
            )
        if self.kappa and self.zero_query:
            raise ValueError(
                f"model.kappa must be 0 with model.zero_query, since a query of zero can't be "
                f"scaled to a size, got {self.kappa}; set model.zero_query=False."
            )
        if self.attention_softcap and self.attention != "softmax":
            raise ValueError(
                f"model.attention_softcap must be 0 with model.attention={self.attention}, which "
                f"has no softmax to cap for, got {self.attention_softcap}; set "
                f"model.attention=softmax."
            )

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        return self.width // self.head_dim
