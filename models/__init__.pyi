"""The public names and where they live: the table that `__init__.py` loads them from."""

from .blocks.layers import Tap as Tap
from .nets.convnet import ConvNet as ConvNet
from .nets.convnet import ConvNetConfig as ConvNetConfig
from .nets.counts import Counts as Counts
from .nets.counts import count_module as count_module
from .nets.kinds import MODELS as MODELS
from .nets.ladder import at_size as at_size
from .nets.ladder import count as count
from .nets.ladder import has_ladder as has_ladder
from .nets.ladder import size_of as size_of
from .nets.parametrize import Parametrization as Parametrization
from .nets.parametrize import Rule as Rule
from .nets.parametrize import parametrize as parametrize
from .nets.torchvision_nets import TorchvisionConfig as TorchvisionConfig
from .nets.torchvision_nets import TorchvisionNet as TorchvisionNet
from .nets.transformer import Transformer as Transformer
from .nets.transformer import TransformerConfig as TransformerConfig
from .nets.vit import ViT as ViT
from .nets.vit import ViTConfig as ViTConfig
