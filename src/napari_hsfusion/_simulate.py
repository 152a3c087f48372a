"""The pair that two sensors would see of a reference cube.

``X = H(Z) + Nx`` and ``Y = Z x3 R + Ny`` with white Gaussian noise at a given
signal-to-noise ratio, ``SNR = 10 log10(mean(signal^2) / sigma^2)`` for each image
on its own (the protocol of the ARGS-Diff paper).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from . import __version__
from . import cube as cubes
from ._forecast import fitted_cube, given_response, pixels, restricted
from ._grid import Bools, low_transform
from ._numbers import checked_seed, whole_number
from ._observe import as_image
from ._responses import Floats, psf_note, spatial_operator
from .errors import CubeError, ParameterError
from .sensors.psf import parse_psf
from .sensors.srf import Response

if TYPE_CHECKING:
    from .engine.operators import SpatialDegradation

_CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class SimulatedPair:
    """What :func:`simulate` made.

    Attributes
    ----------
    lr_hsi : xarray.DataArray, shape (C, h, w), float32
    hr_msi : xarray.DataArray, shape (c, H, W), float32
    response : Response
        Spectral response (c, C) that was used.
    record : dict
        JSON-able; also stored as ``attrs["observation"]`` of both images.
    """

    lr_hsi: xr.DataArray
    hr_msi: xr.DataArray
    response: Response
    record: dict[str, Any]


@dataclass(frozen=True)
class _Truth:
    """Reference with its masks, read in chunks of bands."""

    cube: xr.DataArray
    good: Bools  # (C,)
    valid: Bools  # (H, W): a value in every good band

    def chunks(self) -> Iterator[tuple[slice, Floats]]:
        yield from _chunks(self.cube)


def simulate(
    cube: Any,
    scale: int = 4,
    psf: Any = "bicubic",
    srf: Any = None,
    snr_db: float | None = 35.0,
    seed: int = 0,
    *,
    snr_hsi: float | None = None,
    snr_msi: float | None = None,
    crop: bool = False,
) -> SimulatedPair:
    """Simulate an LR-HSI and an HR-MSI of a reference cube.

    Parameters
    ----------
    cube : xarray.DataArray, array_like of shape (C, H, W), or path
        Reference; may be lazy, it is read in chunks of bands. Pixels without a
        value in a good band are masked: LR pixels whose footprint touches one,
        and HR pixels that are one, become NaN, and no value spreads. Bands that
        are marked as bad, or empty, have no part in the HR-MSI.
    scale : int
        Ratio of the resolutions.
    psf : str, array_like, path or PSF
        ``bicubic``, ``gaussian:SIGMA``, ``gauss3-bicubic``, ``box``, a kernel or
        its file.
    srf : str, path, array_like of shape (c, C) or Response
        Sensor's name, CSV file or matrix.
    snr_db : float or None
        Signal-to-noise ratio of both images in dB; None for no noise.
    seed : int
        Of ``numpy.random.default_rng``: noise is drawn for the LR-HSI first.
    snr_hsi, snr_msi : float, optional
        Instead of `snr_db`, for one image.
    crop : bool
        Crop at the bottom and right to a multiple of `scale`.

    Returns
    -------
    SimulatedPair

    Raises
    ------
    PairError
        If the size is no multiple of `scale`, or the SRF does not fit the bands.
    ResponseError
        If a response is unknown or malformed.
    ParameterError
        If a number is out of range.
    """
    scale = whole_number(scale, "scale", 1)
    seed = checked_seed(seed)
    levels = {
        "lr_hsi": snr_db if snr_hsi is None else snr_hsi,
        "hr_msi": snr_db if snr_msi is None else snr_msi,
    }
    for name, level in levels.items():
        if level is not None and not _is_finite(level):
            raise ParameterError(f"SNR of {name}: expected a finite number of dB, got {level!r}")
    reference = as_image(cube, "reference")
    asked = {"crop": bool(crop), **_origin(cube, reference), **_as_text(srf)}
    whole = pixels(reference)
    reference = fitted_cube(reference, scale, crop)
    shape = pixels(reference)
    given = given_response(srf, reference)
    spread = parse_psf(psf)
    spatial = spatial_operator(spread, shape, scale)
    truth = _survey(reference)
    response = restricted(given, truth.good)
    matrix = response.matrix
    x, y = _project(truth, spatial, matrix)
    rng = np.random.default_rng(seed)
    noise_x = _add_noise(x, levels["lr_hsi"], rng, truth.good)
    noise_y = _add_noise(y, levels["hr_msi"], rng, np.ones(len(y), dtype=bool))

    record: dict[str, Any] = {
        "scale": scale,
        "psf": psf_note(spread),
        "phase": spatial.phase,
        "srf": matrix.tolist(),
        "srf_source": response.source,
        "bands": list(response.names),
        "snr_db": levels["lr_hsi"] if levels["lr_hsi"] == levels["hr_msi"] else None,
        "snr_hsi_db": levels["lr_hsi"],
        "snr_msi_db": levels["hr_msi"],
        "noise_x": noise_x,
        "noise_y": noise_y,
        "seed": seed,
        "notes": list(response.warnings),
    }
    if whole != shape:
        record["cropped"] = {"from": list(whole), "to": list(shape)}
    past = _history(reference, record, asked)
    low = _low(reference, truth.good, x, spatial, record, past)
    high = _high(reference, y, response, record, past)
    return SimulatedPair(low, high, response, record)


def _is_finite(value: Any) -> bool:
    try:
        return bool(np.isfinite(value))
    except (TypeError, ValueError):
        return False


def _chunks(cube: xr.DataArray) -> Iterator[tuple[slice, Floats]]:
    bands, rows, columns = cube.shape
    step = max(1, _CHUNK_BYTES // (rows * columns * 8))
    for start in range(0, bands, step):
        part = slice(start, min(start + step, bands))
        yield part, cubes.to_physical(cube.isel(band=part), np.float64)


def _survey(cube: xr.DataArray) -> _Truth:
    """First pass: which bands are of use, and which pixels are known in all of them."""
    marked = cubes.good_bands(cube)
    good = marked.copy()
    valid = np.ones(cube.shape[1:], dtype=bool)
    for part, values in _chunks(cube):
        known = np.isfinite(values)
        good[part] &= known.any(axis=(1, 2))
        valid &= known[good[part]].all(axis=0)
    if not good.any():
        raise CubeError(f"reference: all {good.size} bands are marked as bad or without any value")
    if not valid.any():
        raise CubeError("reference: no pixel has a value in every good band")
    return _Truth(cube, good, valid)


def _project(truth: _Truth, spatial: SpatialDegradation, matrix: Floats) -> tuple[Floats, Floats]:
    """Second pass: both noise-free images, NaN where they are not known."""
    import torch

    bands = truth.cube.sizes["band"]
    x = np.empty((bands, *spatial.shape_lr))
    y = np.zeros((len(matrix), *spatial.shape_hr))
    hidden = spatial.footprint(~truth.valid)
    for part, values in truth.chunks():
        known = np.isfinite(values)
        # a bad band may hold NaN where the good ones do not: masked on its own account
        own = [
            hidden if good or k.all() else spatial.footprint(~k)
            for good, k in zip(truth.good[part], known, strict=True)
        ]
        filled = np.where(known, values, 0.0)
        x[part] = spatial.forward(torch.from_numpy(filled)).numpy()
        for image, mask in zip(x[part], own, strict=True):
            image[mask | hidden] = np.nan
        y += np.tensordot(matrix[:, part], filled, axes=1)
    y[:, ~truth.valid] = np.nan
    if np.isnan(x[truth.good]).any(axis=0).all():
        raise CubeError("reference: every LR pixel would touch a pixel without a value")
    return x, y


def _add_noise(
    image: Floats, snr_db: float | None, rng: np.random.Generator, measured: Bools
) -> float:
    """Add white noise in place; its standard deviation comes back.

    The signal's power is the mean over the known values of the `measured` bands.
    """
    if snr_db is None:
        return 0.0
    power = float(np.nanmean(image[measured] ** 2))
    sigma = float(np.sqrt(power / 10 ** (snr_db / 10)))
    for band in image:
        band += rng.standard_normal(band.shape) * sigma
    return sigma


def _origin(cube: Any, reference: xr.DataArray) -> dict[str, str]:
    """File (and its variable) or layer of the reference, where it is known."""
    said = {key: reference.encoding.get(key) for key in ("source", "variable", "layer")}
    if said["source"] is None and isinstance(cube, str | os.PathLike):
        said["source"] = cube
    return {key: os.fspath(value) for key, value in said.items() if value is not None}


def _as_text(srf: Any) -> dict[str, str]:
    """Give the SRF as it was asked for, where that is text and no matrix."""
    return {"srf": os.fspath(srf)} if isinstance(srf, str | os.PathLike) else {}


def _history(
    cube: xr.DataArray, record: dict[str, Any], asked: dict[str, Any]
) -> list[dict[str, Any]]:
    """History of either image; with ``observation`` it says all that repeats the run."""
    keys = ("scale", "psf", "srf_source", "bands", "snr_db", "snr_hsi_db", "snr_msi_db", "seed")
    said = {k: record[k] for k in keys}
    if "cropped" in record:
        said["cropped"] = record["cropped"]
    entry = {"step": "simulate", "version": __version__, **said, **asked}
    return [*cube.attrs.get("history", []), entry]


def _of_image(past: list[dict[str, Any]], image: str) -> list[dict[str, Any]]:
    return [*past[:-1], {**past[-1], "image": image}]


def _low(
    cube: xr.DataArray,
    good: Bools,
    x: npt.NDArray[np.floating],
    spatial: SpatialDegradation,
    record: dict[str, Any],
    past: list[dict[str, Any]],
) -> xr.DataArray:
    transform = cube.attrs.get("transform")
    if transform is not None:
        transform = low_transform(transform, spatial.ratio, spatial.phase)
    marked = "good_band" in cube.coords or not good.all()
    return cubes.make_cube(
        x.astype(np.float32),
        wavelength=_coordinate(cube, "wavelength"),
        fwhm=_coordinate(cube, "fwhm"),
        band_name=_coordinate(cube, "band_name"),
        good_band=good if marked else None,
        crs=cube.attrs.get("crs"),
        transform=transform,
        nodata=float("nan"),
        history=_of_image(past, "lr_hsi"),
        observation=record,
        name=_name(cube, "lr_hsi"),
    )


def _high(
    cube: xr.DataArray,
    y: npt.NDArray[np.floating],
    response: Response,
    record: dict[str, Any],
    past: list[dict[str, Any]],
) -> xr.DataArray:
    centres = None
    if response.wavelength is not None:
        weights = response.matrix
        centres = (weights @ response.wavelength) / weights.sum(axis=1)
    return cubes.make_cube(
        y.astype(np.float32),
        wavelength=centres,
        band_name=response.names,
        crs=cube.attrs.get("crs"),
        transform=cube.attrs.get("transform"),
        nodata=float("nan"),
        history=_of_image(past, "hr_msi"),
        observation=record,
        name=_name(cube, "hr_msi"),
    )


def _coordinate(cube: xr.DataArray, key: str) -> list[Any] | None:
    if key not in cube.coords:
        return None
    values: list[Any] = cube.coords[key].values.tolist()
    return values


def _name(cube: xr.DataArray, image: str) -> str:
    return f"{cube.name}_{image}" if cube.name else image
