"""Hyperparameter tuning that sees divergence coming.

The public names; more are at `foretune.models`, `foretune.analysis`, `foretune.tuner` and
`foretune.search_spaces`, which are the folders of these names at the top of a checkout. Everything
is loaded when it is asked for, so that importing this loads neither torch nor Ray.
"""

import lazy_loader

_lazy, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("foretune")
    return _lazy(name)
