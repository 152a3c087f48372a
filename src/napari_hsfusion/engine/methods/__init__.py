"""Every fusion method, found by name in one registry."""

from __future__ import annotations

from typing import Any

from ...errors import ParameterError
from . import args_diff, bicubic, emr_diff, subspace
from .base import Method

__all__ = ["Method", "get_method", "method_names"]

_METHODS: dict[str, Method[Any]] = {
    module.METHOD.name: module.METHOD for module in (bicubic, subspace, args_diff, emr_diff)
}


def method_names() -> tuple[str, ...]:
    """Names of all methods, from the simplest on."""
    return tuple(_METHODS)


def get_method(name: str) -> Method[Any]:
    """Method of that name.

    Raises
    ------
    ParameterError
        Listing the names there are.
    """
    if name not in _METHODS:
        raise ParameterError(f"unknown method {name!r}; known: {', '.join(_METHODS)}")
    return _METHODS[name]
