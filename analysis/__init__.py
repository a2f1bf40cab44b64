"""From a sweep's files to sensitivities, laws, forecasts and a page.

Reads files only; torch, Ray and MLflow are never needed. Names are loaded when they are asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
