"""The kinds of model there are, by name."""

from foretune.models.nets.convnet import ConvNetConfig
from foretune.models.nets.torchvision_nets import TorchvisionConfig
from foretune.models.nets.transformer import TransformerConfig
from foretune.models.nets.vit import ViTConfig

MODELS = {
    "transformer": TransformerConfig,
    "vit": ViTConfig,
    "convnet": ConvNetConfig,
    "torchvision": TorchvisionConfig,
}
"""Model kinds by name: frozen configs with `build()`."""
