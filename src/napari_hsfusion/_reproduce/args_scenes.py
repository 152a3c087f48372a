"""Scenes that ARGS-Diff is tried on: a central crop of a reference, observed as a pair."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from .. import cube as cubes
from .._responses import Bools, psf_note
from .._simulate import SimulatedPair, simulate
from .._training.scenes import Scene, Skipped, find_scenes
from ..engine.events import CancelToken
from ..errors import CubeError, HSFusionError, ParameterError
from ..sensors.psf import PSF

LEAST_SIDE = 16
"""Least side of a crop, pixels."""


@dataclass(frozen=True)
class Observing:
    """How a reference is cropped and observed.

    Attributes
    ----------
    size : int
        Side of the central crop at most, pixels.
    scale : int
        Ratio of the resolutions.
    psf : PSF
    srf : Any
        As :func:`~napari_hsfusion.api.simulate` takes it.
    snr : float or None
        Of both images, dB; None for no noise.
    seed : int
        Of the noise.
    """

    size: int
    scale: int
    psf: PSF
    srf: Any
    snr: float | None
    seed: int


@dataclass(frozen=True)
class Subject:
    """A scene that is fused and scored.

    Attributes
    ----------
    name : str
    truth : ndarray, shape (C, H, W), float32
        Divided by its largest value.
    pair : SimulatedPair
    record : dict
        JSON-able: what was cropped, a digest of it, and its observation.
    """

    name: str
    truth: np.ndarray
    pair: SimulatedPair
    record: dict[str, Any]

    @property
    def key(self) -> str:
        """Name for folders, another one for every pair."""
        text = json.dumps(self.record, sort_keys=True)
        plain = re.sub(r"[^\w.-]+", "-", self.name).strip("-.") or "scene"
        return f"{plain[:60]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def capacity(self) -> tuple[int, int]:
        """Bands, and low-resolution pixels with a value: no subspace has more dimensions."""
        low = self.pair.lr_hsi.values
        return len(low), int(np.isfinite(low).all(axis=0).sum())

    def known(self) -> Bools:
        """Pixels (H, W) that both images cover."""
        low, high = self.pair.lr_hsi.values, self.pair.hr_msi.values
        ratio = high.shape[1] // low.shape[1]
        covered = np.isfinite(low).all(axis=0).repeat(ratio, 0).repeat(ratio, 1)
        seen = covered & np.isfinite(high).all(axis=0) & np.isfinite(self.truth).all(axis=0)
        return np.asarray(seen, dtype=bool)


def open_subjects(
    data: Any, observing: Observing, cancel: CancelToken
) -> Generator[tuple[int, int], None, tuple[tuple[Subject, ...], tuple[Skipped, ...]]]:
    """Crop and observe every cube there is; what cannot be used is listed.

    Parameters
    ----------
    data : path, xarray.DataArray, or iterable of them
    observing : Observing
    cancel : CancelToken
        Looked at before every scene.

    Returns
    -------
    subjects : tuple of Subject
    skipped : tuple of Skipped

    Yields
    ------
    tuple of int
        Scenes looked at, and how many there are.

    Raises
    ------
    ParameterError
        If no scene is left, saying what was found.
    """
    found, skipped = find_scenes(data, "data")
    subjects: list[Subject] = []
    for index, scene in enumerate(found, start=1):
        cancel.check()
        try:
            subject = _observed(scene, observing)
        except (HSFusionError, OSError, ValueError) as error:
            skipped.append(Skipped(scene.name, str(error)))
        else:
            taken = sum(s.record["scene"] == subject.name for s in subjects)
            name = f"{subject.name} ({taken + 1})" if taken else subject.name
            subjects.append(replace(subject, name=name))
        yield index, len(found)
    if not subjects:
        listed = "; ".join(f"{s.name}: {s.reason}" for s in skipped[:8]) or "no file"
        raise ParameterError(f"data: expected reference cubes that can be observed, found {listed}")
    return tuple(subjects), tuple(skipped)


def _observed(scene: Scene, observing: Observing) -> Subject:
    truth, corner = _crop(scene, observing.size, observing.scale)
    pair = simulate(
        truth,
        observing.scale,
        observing.psf,
        observing.srf,
        observing.snr,
        observing.seed,
    )
    values = truth.values
    record = {
        "scene": scene.name,
        "of": list(scene.shape),
        "shape": list(values.shape),
        "corner": list(corner),
        "digest": hashlib.sha256(np.ascontiguousarray(values).data).hexdigest(),
        "scale": observing.scale,
        "psf": psf_note(observing.psf),
        "srf": pair.response.matrix.tolist(),
        "snr": observing.snr,
        "seed": observing.seed,
    }
    return Subject(scene.name, values, pair, record)


def _crop(scene: Scene, size: int, scale: int) -> tuple[xr.DataArray, tuple[int, int]]:
    """Central part of the good bands divided by its largest value, and where it begins."""
    _, rows, columns = scene.shape
    height, width = (min(size, n) - min(size, n) % scale for n in (rows, columns))
    least = max(LEAST_SIDE, 2 * scale)
    if min(height, width) < least:
        raise CubeError(f"expected at least {least} x {least} pixels, got {rows} x {columns}")
    top, left = (rows - height) // 2, (columns - width) // 2
    part = scene.cube.isel(
        band=scene.bands, y=slice(top, top + height), x=slice(left, left + width)
    )
    values = cubes.to_physical(part)
    if not np.isfinite(values).any() or np.nanmax(values) <= 0:
        raise CubeError("the central crop has no value above 0")
    values = (values / np.nanmax(values)).astype(np.float32)
    fwhm = part.coords["fwhm"].values if "fwhm" in part.coords else None
    made = cubes.make_cube(values, wavelength=cubes.wavelengths(part), fwhm=fwhm, name=scene.name)
    return made, (top, left)
