"""What any model config offers."""

from typing import Protocol

from torch import nn


class Buildable(Protocol):
    """A frozen model config."""

    def build(self) -> nn.Module: ...
