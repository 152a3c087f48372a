"""Responses of a pair: as given, as stored with the images, as the engine wants them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from . import cube as cubes
from .errors import PairError, ResponseError
from .sensors.psf import (
    ESTIMATED,
    LEAST_NEGATIVE,
    LEAST_NEGATIVE_ESTIMATED,
    PSF,
    check_kernel,
    parse_psf,
)
from .sensors.srf import Response, load_response

if TYPE_CHECKING:
    from .engine.operators import SpatialDegradation

ESTIMATE = "estimate"

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def restrict_response(matrix: Floats, used: Bools) -> Floats:
    """Set the weights of unused bands to zero; every row keeps its sum.

    Parameters
    ----------
    matrix : ndarray, shape (c, C)
    used : ndarray of bool, shape (C,)

    Raises
    ------
    ResponseError
        If a row has no weight left.
    """
    if used.all():
        return matrix
    kept = np.where(used, matrix, 0.0)
    left = kept.sum(axis=1)
    if (left <= 0).any():
        row = int(np.flatnonzero(left <= 0)[0]) + 1
        raise ResponseError(f"SRF: band {row} of the HR-MSI sees bad bands of the LR-HSI alone")
    return np.asarray(kept * (matrix.sum(axis=1) / left)[:, None])


def resolve_psf(psf: Any, lr_hsi: xr.DataArray, hr_msi: xr.DataArray) -> PSF | None:
    """Point spread function as given, or as stored with the pair; None to estimate it.

    Raises
    ------
    ResponseError
        If it is neither given nor stored, or malformed.
    """
    if psf is None:
        psf = stored("psf", lr_hsi, hr_msi)
        if psf is None:
            raise ResponseError(
                "no PSF is stored with the images: give psf='bicubic', 'gaussian:SIGMA', "
                "'gauss3-bicubic', 'box', a kernel or its file, or 'estimate' (--psf)"
            )
    if isinstance(psf, str) and psf.strip().lower() == ESTIMATE:
        return None
    return psf_from_note(psf) if isinstance(psf, Mapping) else parse_psf(psf)


def resolve_srf(srf: Any, lr_hsi: xr.DataArray, hr_msi: xr.DataArray) -> Response | None:
    """Spectral response as given, or as stored with the pair; None to estimate it.

    A response whose bands have names is narrowed to those that the HR-MSI names, in
    its order, if it names them. The rows of a plain matrix are the HR-MSI's bands.

    Raises
    ------
    ResponseError
        If it is neither given nor stored, or malformed.
    PairError
        If its bands are not those of the images.
    """
    if srf is None:
        srf = stored("srf", hr_msi, lr_hsi)
        if srf is None:
            raise ResponseError(
                "no SRF is stored with the images: give srf= a matrix, a CSV file, a sensor's "
                "name, or 'estimate' (--srf)"
            )
        srf = _with_names(srf, stored("bands", hr_msi, lr_hsi))
    if isinstance(srf, str) and srf.strip().lower() == ESTIMATE:
        return None
    named = isinstance(srf, str | os.PathLike | Response)
    response = cube_response(srf, lr_hsi, "LR-HSI")
    names = tuple(_band_names(hr_msi)) if named else ()
    if names and len(set(names)) == len(names) and set(names) <= set(response.names):
        rows = [response.names.index(name) for name in names]
        response = Response(
            response.matrix[rows],
            response.wavelength,
            names,
            response.source,
            response.resampling,
            response.dropped,
        )
    expected, got = response.matrix.shape[0], hr_msi.sizes["band"]
    if expected != got:
        dropped = f" ({', '.join(response.warnings)})" if response.warnings else ""
        raise PairError(
            f"the SRF from {response.source} has {expected} bands, the HR-MSI {got}{dropped}"
        )
    return response


def cube_response(srf: Any, cube: xr.DataArray, what: str) -> Response:
    """Spectral response on the bands of a cube.

    Raises
    ------
    ResponseError
        If it is unknown or malformed.
    PairError
        If it does not have one column a band.
    """
    bands = cube.sizes["band"]
    given = srf.matrix if isinstance(srf, Response) else srf
    if not isinstance(given, str | os.PathLike):
        shape = np.shape(given)
        if len(shape) == 2 and shape[1] != bands:
            raise PairError(
                f"SRF of shape {shape}: expected {bands} columns, one a band of the {what}, "
                f"got {shape[1]}"
            )
    fwhm = cube.coords["fwhm"].values if "fwhm" in cube.coords else None
    response = load_response(srf, cubes.wavelengths(cube), fwhm)
    if response.matrix.shape[1] != bands:
        raise PairError(
            f"SRF from {response.source}: expected {bands} columns, one a band of the {what}, "
            f"got {response.matrix.shape[1]}"
        )
    return response


def spatial_operator(psf: PSF, shape_hr: tuple[int, int], ratio: int) -> SpatialDegradation:
    """Build the engine's operator of a point spread function.

    Raises
    ------
    ResponseError
        If the kernel is larger than the image, or a phase is asked of a kind that
        has none of its own.
    """
    from .engine.decimation import centred_phase
    from .engine.operators import SpatialDegradation

    psf = parse_psf(psf, image_shape=shape_hr)
    border = {"periodic": "wrap"}.get(psf.border, psf.border)
    if psf.kind == "gaussian" and psf.sigma is not None:
        return SpatialDegradation.gaussian(
            shape_hr, ratio, psf.sigma, border=border, phase=psf.phase
        )
    if psf.kind == "kernel" and psf.kernel is not None:
        return SpatialDegradation.from_kernel(
            psf.kernel, shape_hr, ratio, phase=psf.phase, border=border
        )
    if psf.phase is not None and abs(psf.phase - centred_phase(ratio)) > 1e-9:
        raise ResponseError(
            f"psf {psf.kind}: its phase is {centred_phase(ratio):g} at ratio {ratio}, "
            f"got {psf.phase:g}; only gaussian and kernels take another"
        )
    make = {
        "bicubic": SpatialDegradation.bicubic,
        "gauss3-bicubic": SpatialDegradation.gauss3_bicubic,
        "box": SpatialDegradation.box,
    }[psf.kind]
    return make(shape_hr, ratio, border=border)


@dataclass(frozen=True)
class EffectiveKernel:
    """What one LR pixel sees of the HR grid.

    Attributes
    ----------
    weights : ndarray, shape (k, l), float64
        Of HR pixels; they sum to 1.
    first : (int, int)
        Row and column of ``weights[0, 0]``, counted from the first HR pixel that the
        LR pixel covers.
    """

    weights: Floats
    first: tuple[int, int]


def effective_kernel(psf: Any, ratio: int) -> EffectiveKernel:
    """Weights with which HR pixels enter an LR pixel far from the image's border.

    Parameters
    ----------
    psf : str, path, array_like, PSF or mapping
        As :func:`resolve_psf` takes them.
    ratio : int

    Raises
    ------
    ResponseError
        If it is unknown or malformed, or does not sit on the pixels at this ratio.
    """
    spread = psf_from_note(psf) if isinstance(psf, Mapping) else parse_psf(psf)
    taps = 2.0 * ratio + 1 if spread.sigma is None else 4.0 * spread.sigma
    if spread.kernel is not None:
        taps = float(max(spread.kernel.shape))
    aside = int(np.ceil((taps + abs(spread.phase or 0.0)) / ratio)) + 1
    side = (2 * aside + 1) * ratio
    weights = spatial_operator(spread, (side, side), ratio).weights(aside, aside)
    used = np.abs(weights) > 1e-12 * np.abs(weights).max()
    rows, columns = (np.flatnonzero(used.any(axis=axis)) for axis in (1, 0))
    cut = weights[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    start = aside * ratio
    return EffectiveKernel(cut, (int(rows[0]) - start, int(columns[0]) - start))


def psf_note(psf: PSF) -> str | dict[str, Any]:
    """JSON-able form of a PSF: its name where that says it all, else everything."""
    if psf.kernel is None and psf.phase is None and psf.border == "symmetric":
        return psf.source if psf.kind == "gaussian" else psf.kind
    return psf.record()


def psf_from_note(note: Mapping[str, Any]) -> PSF:
    """Read back what :func:`psf_note` wrote.

    Raises
    ------
    ResponseError
        If a key is missing or malformed.
    """
    if "kind" not in note:
        raise ResponseError(f"stored PSF: expected a key 'kind', got {', '.join(note) or 'none'}")
    if note["kind"] == "kernel":
        lowest = LEAST_NEGATIVE_ESTIMATED if note.get("source") == ESTIMATED else LEAST_NEGATIVE
        kernel = check_kernel(note.get("kernel", 0.0), "stored kernel", lowest)
        made = PSF("kernel", kernel=kernel, source="kernel")
    else:
        sigma = f":{note['sigma']!r}" if "sigma" in note else ""
        made = parse_psf(f"{note['kind']}{sigma}")
    made = parse_psf(made, phase=note.get("phase"), border=note.get("border"))
    return PSF(
        made.kind,
        made.sigma,
        made.kernel,
        str(note.get("source", made.source)),
        made.phase,
        made.border,
    )


def stored(key: str, *images: xr.DataArray) -> Any:
    """Entry `key` of ``attrs["observation"]`` of the first image that has it, or None."""
    for image in images:
        observation = image.attrs.get("observation")
        if isinstance(observation, Mapping) and observation.get(key) is not None:
            return observation[key]
    return None


def _with_names(srf: Any, bands: Any) -> Any:
    """Stored matrix with the names that are stored of its rows, if they are."""
    if isinstance(srf, str | os.PathLike) or not isinstance(bands, list | tuple):
        return srf
    plain = load_response(srf, None)
    if len(bands) != len(plain.matrix):
        return srf
    return Response(plain.matrix, None, tuple(str(band) for band in bands), plain.source)


def _band_names(cube: xr.DataArray) -> list[str]:
    if "band_name" not in cube.coords:
        return []
    return [str(name) for name in cube.coords["band_name"].values]
