"""Small models with pluggable stability mechanisms; torch only. Names are loaded when they are
asked for."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
