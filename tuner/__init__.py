"""Runs, training and sweeps. Names are loaded when they are asked for: training needs neither Ray
nor MLflow."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
