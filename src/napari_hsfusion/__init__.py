"""Fuse hyperspectral and multispectral images with diffusion models."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0.dev0"

_PUBLIC = {
    "open_cube": "api",
    "save_cube": "api",
    "simulate": "api",
    "estimate_responses": "api",
    "fuse": "api",
    "iter_fuse": "api",
    "train": "api",
    "iter_train": "api",
    "reproduce": "api",
    "iter_reproduce": "api",
    "expected_cost": "api",
    "evaluate": "api",
    "compare": "api",
    "assess": "api",
    "consistency": "api",
    "deviation_cube": "api",
    "deviation_map": "api",
    "error_map": "api",
    "methods": "api",
    "as_script": "api",
    "verify": "api",
    "layer_cube": "_layers",
    "add_cube": "_layers.add",
    "preset_params": "api",
    "make_cube": "cube",
    "HSFusionError": "errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
