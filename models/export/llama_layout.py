"""Our decoder LM as the llama architecture of GGUF files: which configs fit, and what is where.

With norm=rmsnorm, mlp=swiglu and no qk_norm the models agree: pre-norm RMSNorm, rotary positions on
the pairs (2p, 2p+1) with base 10000, attention scale 1/sqrt(K), gated MLP, no biases, untied head.
Our q, k and v are one weight of 3 D rows; there they are three of D rows each.
"""

from dataclasses import fields

import torch
from torch import Tensor, nn

from foretune.models.blocks.block import Block
from foretune.models.blocks.buildable import Buildable
from foretune.models.blocks.layers import Tap
from foretune.models.nets.transformer import TransformerConfig
from foretune.models.quantization.config import Quantization

ROPE_BASE = 10000.0
"""That of `models.blocks.attention_core.turn_table`."""
NEEDED = {"norm": "rmsnorm", "mlp": "swiglu", "qk_norm": False}
"""Options that make a config exportable."""
FREE = ("width", "depth", "head_dim", "vocab_size", "max_positions", "ladder", "zero_query")
"""Options that may be anything: sizes, and what no longer shows in a trained model."""
OUTSIDE = {
    "embedding.weight": "token_embd.weight",
    "final_norm.weight": "output_norm.weight",
    "head.weight": "output.weight",
}
IN_BLOCK = {
    "attention_norm.weight": ("attn_norm",),
    "attention.qkv.weight": ("attn_q", "attn_k", "attn_v"),
    "attention.attention_out.weight": ("attn_output",),
    "mlp_norm.weight": ("ffn_norm",),
    "mlp.mlp_gate.weight": ("ffn_gate",),
    "mlp.mlp_in.weight": ("ffn_up",),
    "mlp.mlp_out.weight": ("ffn_down",),
}


def check_llama(
    model: nn.Module, config: Buildable, quantization: Quantization
) -> TransformerConfig:
    """Returns the config; ValueError says which options make the model a llama."""
    options = " ".join(f"model.{name}={value}" for name, value in NEEDED.items())
    if not isinstance(config, TransformerConfig):
        kind = getattr(config, "kind", type(config).__name__)
        raise ValueError(
            f"GGUF export serves model.kind=transformer with {options}, got {kind}; export it as "
            f"safetensors."
        )
    wanted = {f.name: f.default for f in fields(config) if f.name not in FREE} | NEEDED
    others = {n: getattr(config, n) for n, v in wanted.items() if getattr(config, n) != v}
    if others:
        got = ", ".join(f"model.{name}={value}" for name, value in others.items())
        cure = " ".join(f"model.{name}={wanted[name]}" for name in others)
        raise ValueError(
            f"GGUF export needs the Llama block ({options}), got {got}; train with {cure}, or "
            f"export as safetensors."
        )
    if quantization.norm:
        raise ValueError(
            "GGUF export needs quantization.norm=False, got True: the llama architecture has no "
            "norm inside its layers; train without it, or export as safetensors."
        )
    _check_built(model, config)
    return config


def _check_built(model: nn.Module, config: TransformerConfig) -> None:
    changed = model.state_dict().keys() ^ llama_names(config.depth).keys()
    if changed:
        raise ValueError(
            f"GGUF export needs the parameters that the config builds, got a model that differs in "
            f"{', '.join(sorted(changed)[:3])}; export it as safetensors."
        )
    for tap in model.modules():
        if isinstance(tap, Tap) and tap.kind == "attention" and tap.scale != config.head_dim**-0.5:
            raise ValueError(
                f"GGUF export needs the attention scale 1/sqrt(head_dim), got {tap.scale} in layer "
                f"{tap.layer}; train with model.attention_scale=sqrt, and not with parametrization."
                f"name=mup-full."
            )
    for block in model.modules():
        if isinstance(block, Block) and block.branch_scale != 1:
            raise ValueError(
                f"GGUF export needs residual branches that count in full, got a factor of "
                f"{block.branch_scale}; train with parametrization.base_depth=0."
            )


def llama_names(depth: int) -> dict[str, tuple[str, ...]]:
    """Returns the GGUF tensors of every parameter: one, or three that share its rows evenly."""
    names: dict[str, tuple[str, ...]] = {n: (other,) for n, other in OUTSIDE.items()}
    for layer in range(depth):
        for name, others in IN_BLOCK.items():
            gguf = tuple(f"blk.{layer}.{other}.weight" for other in others)
            names[f"blocks.{layer}.{name}"] = gguf
    return names


def to_llama(values: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Returns the GGUF tensors of all parameters, by their names there."""
    split: dict[str, Tensor] = {}
    for name, others in llama_names(depth).items():
        split |= zip(others, values[name].chunk(len(others)), strict=True)
    return split


def from_llama(tensors: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Returns all parameters of the GGUF tensors; the inverse of `to_llama`.

    Raises ValueError where one is missing.
    """
    names = llama_names(depth)
    missing = [n for others in names.values() for n in others if n not in tensors]
    if missing:
        raise ValueError(
            f"GGUF file must hold the tensors of {depth} llama blocks, got none called "
            f"{', '.join(missing[:3])}; export it again."
        )
    return {name: torch.cat([tensors[n] for n in others]) for name, others in names.items()}
