"""What the first pass of a model showed, in sentences and as facts of its config."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from foretune.tuner.watch.discovery import Parts


@dataclass(slots=True)
class Seen:
    """What the first pass showed of a model and its data."""

    attention: dict[int, str] = field(default_factory=dict)
    """Layers with attention, and the module and function by which they have it."""
    head_dim: int = 0
    heads: int = 0
    context: int = 0
    stride: int = 1
    """Attention logits are read of one query in so many."""
    shape: tuple[int, ...] = ()
    """Of the batch that the model was given."""
    is_text: bool = False
    """Whether that holds whole numbers."""
    logits: tuple[int, ...] = ()
    """Their shape; empty where the model gives none."""
    passes: int = 0
    """Forward passes with gradients, of one update."""
    shortfall: float = 0.0
    """How much higher the largest logit over all queries was in the first pass, as a share."""

    @property
    def batch_size(self) -> int | None:
        """Samples of an update; None where the model was given no tensor."""
        return self.shape[0] * max(self.passes, 1) if self.shape else None

    @property
    def sequence_length(self) -> int | None:
        """Positions of a sample: of its tokens, else of its attention."""
        if self.is_text and len(self.shape) > 1:
            return self.shape[1]
        return self.context or None

    @property
    def tokens(self) -> int:
        """Tokens (or samples that aren't text) of an update."""
        positions = self.shape[1] if self.is_text and len(self.shape) > 1 else 1
        return (self.batch_size or 0) * positions


def facts_of(
    parts: Parts, optimizers: Sequence[Optimizer], *, steps: int, telemetry_every: int
) -> dict[str, Any]:
    """Returns what a config needn't say itself, by dotted path."""
    groups = [group for one in optimizers for group in one.param_groups]
    first = groups[0] if groups else {}
    beta1, beta2 = first.get("betas", (None, None))
    facts = {
        "model.kind": type(parts.root).__name__,
        "model.depth": len(parts.blocks) or None,
        "steps": steps,
        "telemetry_every": telemetry_every,
        "optimizer.name": type(optimizers[0]).__name__.lower() if optimizers else None,
        "optimizer.lr": first.get("initial_lr", first.get("lr")),
        "optimizer.weight_decay": first.get("weight_decay"),
        "optimizer.beta1": beta1,
        "optimizer.beta2": beta2,
        "optimizer.epsilon": first.get("eps"),
        "n_params": parts.n_params,
    }
    # A rate may be a tensor, for a captured graph.
    return {path: v.item() if isinstance(v, Tensor) else v for path, v in facts.items()}


def sentences(parts: Parts, seen: Seen, optimizers: Sequence[Optimizer]) -> tuple[str, ...]:
    """Returns what was found in a model, and what wasn't with what to do about it."""
    return (
        _blocks(parts),
        *_attention(parts, seen),
        _logits(seen),
        _size(parts),
        *_optimizers(optimizers),
        *_compiled(parts),
    )


def _blocks(parts: Parts) -> str:
    if not parts.blocks:
        return (
            "blocks: none found, so output norms aren't read; hold the layers in an nn.ModuleList "
            "or nn.Sequential of one class, or put foretune.models.Tap('block_output', layer=i) "
            "behind each."
        )
    name, block = parts.blocks[0]
    folder = name.rpartition(".")[0] or "the model"
    return f"blocks: {folder}, {len(parts.blocks)} of {type(block).__name__}"


def _attention(parts: Parts, seen: Seen) -> tuple[str, ...]:
    if not seen.attention:
        none = "attention: none found"
        if seen.passes == 0:
            none = "attention: none found, since the model's forward was not called in training"
        return (
            f"{none}; a forecast that reads its logits can't tell. Attention is seen in "
            f"F.scaled_dot_product_attention, nn.MultiheadAttention, flex_attention and a softmax "
            f"over a product; for another, put foretune.models.Tap('attention', layer=i) where q "
            f"and k are.",
        )
    layers = sorted(seen.attention)
    shown = ", ".join(seen.attention[at] for at in layers[:2])
    more = f", and {len(layers) - 2} more" if len(layers) > 2 else ""
    found = (f"attention: {shown}{more}; {seen.heads} heads of {seen.head_dim}",)
    outside = [at for at in layers if at >= len(parts.blocks) > 0]
    if outside:
        found += (
            f"attention outside of the blocks: {len(outside)} modules, as layers {outside[0]} to "
            f"{outside[-1]}",
        )
    without = sorted(set(range(len(parts.blocks))) - set(layers))
    if without:
        names = ", ".join(parts.blocks[at][0] for at in without[:3])
        found += (f"attention: none found in {len(without)} blocks ({names})",)
    if seen.stride > 1:
        found += (
            f"attention logits are read of one query in {seen.stride}; over all queries the "
            f"largest was {seen.shortfall:.1%} higher in the first pass",
        )
    return found


def _logits(seen: Seen) -> str:
    if not seen.logits:
        return (
            "logits: none found, so log Z isn't read; let the model return them, alone, as "
            "`logits` or in a tuple."
        )
    return f"logits: the model's output, {' x '.join(map(str, seen.logits))}"


def _size(parts: Parts) -> str:
    without = f"without embeddings and {parts.head}" if parts.head else "without embeddings"
    return f"size: N = {parts.n_params:,} parameters {without}; {parts.n_params_total:,} in all"


def _optimizers(optimizers: Sequence[Optimizer]) -> tuple[str, ...]:
    if not optimizers:
        return ("optimizer: none given, so learning rate and updates aren't read; pass it.",)
    return ()


def _compiled(parts: Parts) -> tuple[str, ...]:
    if not parts.compiled:
        return ()
    return ("torch.compile: read by a pass of its own, not compiled, over a quarter of the batch",)
