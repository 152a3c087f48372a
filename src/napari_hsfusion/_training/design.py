"""Designs of the networks that can be trained, by the name of their method."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..engine.emr.config import EmrConfig
from ..engine.emr.model import EmrModel
from ..engine.emr.weights import METHOD as EMR_DIFF
from ..engine.nets.initialise import initialise
from ..errors import ParameterError, WeightsError

METHODS = (EMR_DIFF,)
"""Methods that are trained on scenes."""

_GIVEN = ("bands", "msi_bands", "ratio")
_CALLED = {"steps": "T"}  # training has steps of its own


def check_method(name: str) -> str:
    """Return the name of a method that is trained on scenes.

    Raises
    ------
    ParameterError
        If it is none.
    """
    if name not in METHODS:
        raise ParameterError(
            f"method: expected one that is trained on scenes ({', '.join(METHODS)}), got {name!r}"
        )
    return name


def make_config(design: Mapping[str, Any], *, bands: int, msi_bands: int, ratio: int) -> EmrConfig:
    """Design of an EMR-Diff model for a kind of pair.

    Parameters
    ----------
    design : mapping
        Options of the network by their names in
        :class:`~napari_hsfusion.params.emr_diff.EmrDiffParams`, or their text form:
        ``architecture``, ``residual``, ``noise``, ``start``, ``T``, ``kappa``,
        ``width`` (C + c, as published, without it) and ``pseudo``, which counts bands
        from 1, as in ``1,15,31``. ``auto`` is as good as leaving an option out.
    bands, msi_bands, ratio : int

    Raises
    ------
    ParameterError
        If an option is unknown or has a value it cannot have.
    """
    hints = typing.get_type_hints(EmrConfig)
    fields = (f.name for f in dataclasses.fields(EmrConfig) if f.name not in _GIVEN)
    known = {_CALLED.get(name, name): name for name in fields}
    values: dict[str, Any] = {"width": bands + msi_bands}
    for name, value in design.items():
        if name not in known:
            raise ParameterError(f"design: unknown option {name!r}; known: {', '.join(known)}")
        if value is not None and value != "auto":
            values[known[name]] = _converted(name, value, hints[known[name]])
    try:
        return EmrConfig(bands=bands, msi_bands=msi_bands, ratio=ratio, **values)
    except WeightsError as error:
        raise ParameterError(f"design: {error}") from None


def make_model(config: EmrConfig, seed: int) -> EmrModel:
    """Model with starting weights drawn from a seed."""
    with torch.device("meta"):  # torch's own starting weights would move its global generator
        model = EmrModel(config)
    initialise(model.to_empty(device="cpu"), torch.Generator().manual_seed(seed))
    return model


def weights_name(out: Path) -> Path:
    """Return the path of a weights file.

    Raises
    ------
    ParameterError
        If its name does not end in ``.safetensors``.
    """
    if out.suffix != ".safetensors":
        raise ParameterError(f"out: expected a name ending in .safetensors, got {str(out)!r}")
    return out


def _converted(name: str, value: Any, kind: Any) -> Any:
    try:
        if name == "pseudo":
            items = value.split(",") if isinstance(value, str) else value
            return tuple(int(item) - 1 for item in items)
        return kind(value)
    except (TypeError, ValueError):
        wanted = {int: "a whole number", float: "a number"}.get(kind, "band numbers, from 1")
        raise ParameterError(f"design: {name}: expected {wanted}, got {value!r}") from None
