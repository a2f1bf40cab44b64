"""Small models with pluggable stability mechanisms; torch only."""

from models.convnet import ConvNet, ConvNetConfig
from models.counts import Counts, count_module
from models.ladder import at_size, count, has_ladder, size_of
from models.layers import Tap
from models.parametrize import Parametrization, Rule, parametrize
from models.torchvision_nets import TorchvisionConfig, TorchvisionNet
from models.transformer import Transformer, TransformerConfig
from models.vit import ViT, ViTConfig

MODELS = {
    "transformer": TransformerConfig,
    "vit": ViTConfig,
    "convnet": ConvNetConfig,
    "torchvision": TorchvisionConfig,
}
"""Model kinds by name: frozen configs with `build()`."""

__all__ = [
    "MODELS",
    "ConvNet",
    "ConvNetConfig",
    "Counts",
    "Parametrization",
    "Rule",
    "Tap",
    "TorchvisionConfig",
    "TorchvisionNet",
    "Transformer",
    "TransformerConfig",
    "ViT",
    "ViTConfig",
    "at_size",
    "count",
    "count_module",
    "has_ladder",
    "parametrize",
    "size_of",
]
