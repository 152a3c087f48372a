"""Cubes against a reference: numbers, metric by metric, and maps."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from . import cube as cubes
from ._grid import Bools
from ._observe import as_image
from ._responses import Floats
from .errors import PairError, ParameterError

MAPS = ("rmse", "band", "sam")
"""What :func:`error_map` draws."""


@dataclass(frozen=True)
class Evaluation:
    """Result of :func:`iter_evaluate`.

    Attributes
    ----------
    row : dict
        What :func:`evaluate` returns.
    notes : tuple of str
        Why metrics have no value, one text a metric whose number is NaN.
    """

    row: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def evaluate(
    reference: Any,
    estimate: Any,
    scale: float | None = None,
    convention: str = "hsfusion",
    mask: Any = None,
    clip: bool = True,
) -> dict[str, Any]:
    """Measure a cube against its reference.

    Parameters
    ----------
    reference, estimate : xarray.DataArray, array_like of shape (C, H, W), or path
        In one unit. Bands that either marks as bad, or that are empty, and pixels
        without a value in either, have no part.
    scale : float, optional
        Ratio of the resolutions, for ERGAS; by default what the estimate's record says.
    convention : str
        ``hsfusion``, ``args-diff`` or ``emr-diff``.
    mask : array_like of bool, shape (H, W), optional
        True where a pixel is to be left out.
    clip : bool
        Whether values of the estimate beyond the reference's range (from its minimum,
        or 0 if that is lower, to its maximum) count as the range's ends, as the
        published evaluations do.

    Returns
    -------
    dict
        Of :func:`napari_hsfusion.metrics.evaluate`: ``psnr`` (dB), ``sam`` (degrees,
        or radians by the convention), ``ergas``, ``ssim``, ``uiqi`` and more; and
        ``bands_used``, ``bands``, ``clipped_values``.

    Raises
    ------
    PairError
        If the shapes differ.
    ParameterError
        If the scale is not known, or the convention is not.

    Warns
    -----
    UserWarning
        If a metric has no value for this pair; its number is NaN.
    """
    steps = iter_evaluate(reference, estimate, scale, convention, mask, clip)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            measured: Evaluation = stop.value
            break
    for note in measured.notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    return measured.row


def iter_evaluate(
    reference: Any,
    estimate: Any,
    scale: float | None = None,
    convention: str = "hsfusion",
    mask: Any = None,
    clip: bool = True,
) -> Generator[float, None, Evaluation]:
    """Measure a cube against its reference, with a halt after every metric.

    Parameters
    ----------
    reference, estimate, scale, convention, mask, clip
        As :func:`evaluate` takes them.

    Returns
    -------
    Evaluation
        The numbers, and in words why some have no value.

    Yields
    ------
    float
        Share of the work that is done, at most 1.

    Raises
    ------
    PairError, ParameterError, CubeError
        As :func:`evaluate` raises them.
    """
    from .metrics.conventions import iter_scores

    truth, guess = as_image(reference, "reference"), as_image(estimate, "estimate")
    _check_shapes(truth, guess)
    if scale is None:
        scale = guess.attrs.get("record", {}).get("scale")
        if scale is None:
            raise ParameterError("scale: the estimate does not say; give the ratio (--scale)")
    matched = _match(truth, guess, clip)
    row: dict[str, Any] = {}
    notes = []
    for score in iter_scores(matched.first, matched.second, scale, convention, mask):
        row.update(score.values)
        if score.note:
            notes.append(score.note)
        yield score.done
    row["bands_used"] = int(matched.used.sum())
    row["bands"] = int(matched.used.size)
    row["clipped_values"] = matched.clipped
    return Evaluation(row, tuple(notes))


def compare(
    estimates: Mapping[str, Any],
    reference: Any,
    scale: float | None = None,
    convention: str = "hsfusion",
    mask: Any = None,
    clip: bool = True,
) -> list[dict[str, Any]]:
    """Measure several cubes against one reference.

    Parameters
    ----------
    estimates : mapping of str to cube, array or path
    reference, scale, convention, mask, clip
        As :func:`evaluate` takes them.

    Returns
    -------
    list of dict
        One row an estimate, in order: ``name`` and what :func:`evaluate` returns.

    Raises
    ------
    PairError, ParameterError
        As :func:`evaluate` raises them.
    """
    truth = as_image(reference, "reference")
    return [
        {"name": name, **evaluate(truth, guess, scale, convention, mask, clip)}
        for name, guess in estimates.items()
    ]


def error_map(
    reference: Any,
    estimate: Any,
    of: Literal["rmse", "band", "sam"] = "rmse",
    *,
    band: int | None = None,
    mask: Any = None,
    clip: bool = True,
) -> npt.NDArray[np.float32]:
    """Draw where a cube differs from its reference.

    Parameters
    ----------
    reference, estimate
        As :func:`evaluate` takes them: the map is of the values that are measured there.
    of : {"rmse", "band", "sam"}
        RMSE over the bands, absolute error of one band, or spectral angle in degrees.
    band : int, optional
        0-based; with ``of="band"`` alone.
    mask, clip
        As :func:`evaluate` takes them.

    Returns
    -------
    ndarray, shape (H, W), float32
        In the unit of the images, or degrees; NaN where nothing is known.

    Raises
    ------
    PairError
        If the shapes differ, no band is good in both, or the band is not.
    ParameterError
        If there is no such map or band.
    """
    from . import metrics

    if of not in MAPS:
        raise ParameterError(f"of: expected one of {', '.join(MAPS)}, got {of!r}")
    if (band is None) == (of == "band"):
        raise ParameterError(f"band: expected a 0-based band for 'band' alone, got {band!r}")
    truth, guess = as_image(reference, "reference"), as_image(estimate, "estimate")
    _check_shapes(truth, guess)
    matched = _match(truth, guess, clip)
    first, second = matched.first, matched.second
    if of == "sam":
        drawn = metrics.sam_map(first, second, mask)
    elif band is None:
        drawn = metrics.rmse_map(first, second, mask)
    else:
        if not 0 <= band < matched.used.size:
            raise ParameterError(f"band: expected 0 to {matched.used.size - 1}, got {band}")
        if not matched.used[band]:
            raise PairError(f"band {band + 1} is marked as bad, or empty, in one of the images")
        place = int(np.count_nonzero(matched.used[:band]))
        drawn = metrics.absolute_error_map(first, second, mask, band=place)
    return drawn.astype(np.float32)


@dataclass(frozen=True)
class _Matched:
    """Physical values (bands used, H, W) of two cubes, and which bands those are."""

    first: Floats
    second: Floats
    used: Bools
    clipped: int


def _check_shapes(truth: xr.DataArray, guess: xr.DataArray) -> None:
    if truth.shape != guess.shape:
        raise PairError(
            f"the reference has shape (band, y, x) {truth.shape}, the estimate {guess.shape}"
        )


def _match(truth: xr.DataArray, guess: xr.DataArray, clip: bool) -> _Matched:
    used = cubes.good_bands(truth) & cubes.good_bands(guess)
    first, second = (cubes.to_physical(c, np.float64) for c in (truth, guess))
    for values in (first, second):
        used &= np.isfinite(values).any(axis=(1, 2))
    if not used.any():
        raise PairError("reference and estimate: no band is good and has values in both")
    first, second = first[used], second[used]
    clipped = 0
    if clip:
        low, high = min(0.0, float(np.nanmin(first))), float(np.nanmax(first))
        clipped = int(((second < low) | (second > high)).sum())
        second = np.clip(second, low, high)
    return _Matched(first, second, used, clipped)
