"""Linear layers in sigma-reparametrisation (Zhai et al. 2023, section 3).

Shapes: I inputs, O outputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foretune.models.blocks.layers import Linear
from foretune.models.blocks.matmul import linear

SQUARINGS = 12
"""Squarings of W^T W before training: as good as 2^12 power iterations."""


class Gain(nn.Module):
    """A learned factor that starts at 1; a module, so that telemetry knows it by name."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))


class SigmaLinear(Linear):
    """x @ (gain W / sigma(W)).T, sigma the largest singular value of W, without bias.

    sigma = u . W v with vectors u and v that each forward pass in training mode improves by one
    power iteration (Miyato et al. 2018, algorithm 1), so with more micro-batches they lag less; the
    gradient goes through W alone. Other passes use the vectors as they are. They are part of the
    state, and exact at the start. W is drawn as `Linear` draws it.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.sigma_gain = Gain()
        self.register_buffer("u_O", torch.empty(outputs))
        self.register_buffer("v_I", torch.empty(inputs))
        self.u_O: Tensor
        self.v_I: Tensor
        self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """Takes u and v of the weight as it is; whoever changes it between steps calls this."""
        outputs, inputs = self.weight.shape
        matrix = self.weight if inputs <= outputs else self.weight.T  # The smaller Gram matrix.
        gram = matrix.T @ matrix
        for _ in range(SQUARINGS):
            gram = gram / torch.linalg.matrix_norm(gram)
            gram = gram @ gram
        # No draw from the generator, so that all other weights keep theirs.
        start = torch.cos(torch.arange(len(gram), dtype=gram.dtype, device=gram.device))
        near = F.normalize(gram @ start, dim=0)
        far = F.normalize(matrix @ near, dim=0)
        v_I, u_O = (near, far) if inputs <= outputs else (far, near)
        self.v_I.copy_(v_I)
        self.u_O.copy_(u_O)

    def forward(self, x: Tensor) -> Tensor:
        # Autocast would round sigma to 8 bits.
        with torch.autocast(x.device.type, enabled=False):
            weight_OI = self.scaled_weight()
        return linear(x, weight_OI)

    def scaled_weight(self) -> Tensor:
        """Returns gain W / sigma(W), shape (O, I)."""
        u_O, v_I = self._vectors()
        sigma = torch.dot(u_O, torch.mv(self.weight, v_I))
        return self.weight * (self.sigma_gain.weight / sigma)

    @torch.no_grad()
    def _vectors(self) -> tuple[Tensor, Tensor]:
        # Copies, since backward needs those of this pass when the next one has changed them.
        if not self.training:
            return self.u_O.clone(), self.v_I.clone()
        v_I = F.normalize(torch.mv(self.weight.T, self.u_O), dim=0)
        u_O = F.normalize(torch.mv(self.weight, v_I), dim=0)
        self.u_O.copy_(u_O)
        self.v_I.copy_(v_I)
        return u_O, v_I
