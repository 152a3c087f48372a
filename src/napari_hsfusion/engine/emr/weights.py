"""Weights of an EMR-Diff model in one file: safetensors with a JSON header, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch

from ...errors import WeightsError, WriteError
from ..checkpoint import replace_file
from .config import EmrConfig
from .model import EmrModel

METHOD = "emr-diff"

_KEY = "hsfusion"
_KIND = "weights 1"
_SIZES = ("bands", "msi_bands", "ratio")
_FARTHEST_SRF = 0.25
"""Largest difference of two response rows, summed over bands, that still fits."""


def save_weights(path: Path, model: EmrModel, header: Mapping[str, Any]) -> None:
    """Write a model's weights, whole or not at all.

    Parameters
    ----------
    path : Path
    model : EmrModel
    header : mapping
        JSON-able: ``wavelengths``, ``psf``, ``srf`` and whatever else is to be known
        of the training. The model's design is added.

    Raises
    ------
    WriteError
        If the file cannot be written; whatever stood there before still does.
    WeightsError
        If a weight is not finite, or the header is not JSON-able.
    """
    # clones: safetensors takes no two tensors that share memory
    state = {k: v.detach().cpu().clone().contiguous() for k, v in model.state_dict().items()}
    if not all(bool(torch.isfinite(v).all()) for v in state.values()):
        raise WeightsError(f"{path}: weights that are not finite are not saved")
    document = {
        **header,
        "kind": _KIND,
        "method": METHOD,
        "config": model.config.to_record(),
        "bands": model.config.bands,
        "msi_bands": model.config.msi_bands,
        "ratio": model.config.ratio,
    }
    try:
        text = json.dumps(document, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path}: expected a JSON-able header: {error}") from error
    try:
        replace_file(path, safetensors.torch.save(state, {_KEY: text}))
    except OSError as error:
        raise WriteError(f"{path}: the weights cannot be saved: {error}") from error


def read_weights_header(path: Path) -> dict[str, Any]:
    """What weights are, without reading them.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or holds something else.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_KEY)
        header = json.loads(text) if text is not None else None
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be read as weights: {error}") from error
    if not isinstance(header, dict) or header.get("kind") != _KIND:
        found = header.get("kind") if isinstance(header, dict) else "no header"
        raise WeightsError(f"{path}: expected {_KIND} of this package, got {found}")
    if header.get("method") != METHOD:
        raise WeightsError(f"{path}: expected weights of {METHOD}, got {header.get('method')}")
    return header


def load_weights(path: Path) -> tuple[EmrModel, dict[str, Any]]:
    """Read a model.

    Returns
    -------
    model : EmrModel
        On the CPU, in evaluation mode, without gradients.
    header : dict

    Raises
    ------
    WeightsError
        If the file is missing, truncated, of another method, or its tensors are not
        those of the design that its header names.
    """
    header = read_weights_header(path)
    config = EmrConfig.from_record(_expected(header, "config", dict, path))
    for name in _SIZES:
        if header.get(name, getattr(config, name)) != getattr(config, name):
            raise WeightsError(
                f"{path}: its header has {name} = {header[name]}, and a design for "
                f"{getattr(config, name)}"
            )
    try:
        state = safetensors.torch.load_file(path)
        with torch.device("meta"):  # no time is spent on weights that are replaced
            model = EmrModel(config)
        model.to_empty(device="cpu").load_state_dict(state, strict=True)
    except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path}: these are not the weights of its design: {error}") from error
    return model.eval().requires_grad_(False), header


def check_fit(
    header: Mapping[str, Any],
    bands: int,
    wavelengths: npt.ArrayLike | None,
    ratio: int,
    msi_bands: int,
    srf: npt.ArrayLike | None = None,
) -> None:
    """Make sure that weights are for a kind of pair.

    Parameters
    ----------
    header : mapping
        As :func:`load_weights` gives it.
    bands : int
        C of the LR-HSI.
    wavelengths : array_like, shape (C,), optional
        Band centres in nm; not compared where either side has none.
    ratio : int
    msi_bands : int
        c of the HR-MSI.
    srf : array_like, shape (c, C), optional
        Spectral response of the pair; not compared without it.

    Raises
    ------
    WeightsError
        Naming what the weights expect and what came.
    """
    for name, what, got in (
        ("bands", "hyperspectral bands", bands),
        ("msi_bands", "multispectral bands", msi_bands),
        ("ratio", "as ratio of the resolutions", ratio),
    ):
        if header.get(name) != got:
            raise WeightsError(f"these weights expect {header.get(name)} {what}, got {got}")
    if header.get("wavelengths") is not None and wavelengths is not None:
        own = _numbers(header, "wavelengths", (bands,))
        _check_wavelengths(own, np.asarray(wavelengths, float))
    if header.get("srf") is not None and srf is not None:
        own = _numbers(header, "srf", (msi_bands, bands))
        apart = np.abs(_unit_rows(own) - _unit_rows(srf)).sum(axis=1)
        if apart.max() > _FARTHEST_SRF:
            raise WeightsError(
                "these weights are for another multispectral sensor "
                f"({header.get('srf_source', 'unnamed')}): expected responses that differ by at "
                f"most {_FARTHEST_SRF:g} summed over bands, got {apart.max():.2f} in band "
                f"{int(apart.argmax()) + 1}"
            )


def _check_wavelengths(own: npt.NDArray[np.float64], got: npt.NDArray[np.float64]) -> None:
    spacing = float(np.median(np.abs(np.diff(own)))) if own.size > 1 else 20.0
    apart = np.abs(own - got)
    if apart.max() > spacing / 2:
        worst = int(apart.argmax())
        raise WeightsError(
            f"these weights expect bands from {own[0]:g} to {own[-1]:g} nm, got {got[0]:g} to "
            f"{got[-1]:g} nm: band {worst + 1} at {got[worst]:g} nm instead of {own[worst]:g} nm"
        )


def _numbers(
    header: Mapping[str, Any], name: str, shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    try:
        values = np.asarray(header[name], dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != shape or not np.isfinite(values).all():
        size = " x ".join(map(str, shape))
        raise WeightsError(f"these weights have a damaged header: {name}: expected {size} numbers")
    return values


def _unit_rows(matrix: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(matrix, dtype=np.float64)
    return array / array.sum(axis=1, keepdims=True)


def _expected(header: Mapping[str, Any], name: str, kind: type, path: Path) -> Any:
    value = header.get(name)
    if not isinstance(value, kind):
        raise WeightsError(f"{path}: its header has no {name}")
    return value
