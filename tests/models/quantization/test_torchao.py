"""Agreement with torchao's ternary training, an independent implementation of Microsoft's formulas.

torchao is optional. Where it is not installed this file holds no test (nothing is skipped); with
the extra `torchao` it does.
"""

import importlib.util
import warnings

import torch
from torch import nn

from foretune.models.quantization.config import Quantization
from foretune.models.quantization.replace import quantize

torch.set_num_threads(1)

if importlib.util.find_spec("torchao") is not None:

    def test_value_and_gradients_equal_torchao_s_bitnet_training():
        """Mean of |W| per tensor, int8 tokens, identity gradient: both to 1e-5."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torchao import quantize_
            from torchao.prototype.quantized_training import bitnet_training
        for shape, bias in (((64, 96), True), ((256, 128), False), ((128, 512), True)):
            torch.manual_seed(0)
            layer = nn.Linear(*shape, bias=bias)
            x, dy = torch.randn(48, shape[0]), torch.randn(48, shape[1])
            theirs, ours = nn.Sequential(nn.Linear(*shape, bias=bias)), nn.Sequential(layer)
            theirs.load_state_dict(ours.state_dict())
            quantize_(theirs, bitnet_training())
            quantize(ours, Quantization(format="ternary", head=True))
            for mine, reference in zip(step(ours, x, dy), step(theirs, x, dy), strict=True):
                error = (mine - reference).norm() / reference.norm()
                assert error < 1e-5, (shape, float(error))

    def step(model, x, dy):
        x = x.clone().requires_grad_()
        y = model(x)
        y.backward(dy)
        return [y.detach(), x.grad, *(p.grad for p in model.parameters())]
