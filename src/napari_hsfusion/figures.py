"""Pictures of fused cubes: colour composites and error maps on one shared scale.

Drawn with matplotlib's object interface alone, so that no window, no global
figure and no back end of the host application is touched.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import cube as cubes
from .errors import CubeError, PairError, WriteError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

RGB_NM = (640.0, 550.0, 460.0)
"""Wavelengths drawn as red, green and blue, nm."""

_INFRARED_NM = (1650.0, 850.0, 660.0)


def composite_bands(cube: xr.DataArray) -> tuple[int, int, int]:
    """Choose the bands that are drawn as red, green and blue.

    Parameters
    ----------
    cube : xarray.DataArray
        Dimensions (band, y, x).

    Returns
    -------
    tuple of int
        0-based bands, good ones only: those nearest to 640, 550 and 460 nm; where
        the cube has no visible bands, to 1650, 850 and 660 nm; without wavelengths,
        bands at 3/4, 1/2 and 1/4 of the good ones.

    Raises
    ------
    CubeError
        If every band is marked as bad.
    """
    good = np.flatnonzero(cubes.good_bands(cube))
    if good.size == 0:
        raise CubeError("a colour composite needs at least one good band, got none")
    centres = cubes.wavelengths(cube)
    if centres is None:
        last = good.size - 1
        picks = [good[round(last * part)] for part in (0.75, 0.5, 0.25)]
    else:
        seen = centres[good]
        visible = seen.min() <= RGB_NM[2] + 60.0 and seen.max() >= RGB_NM[0] - 60.0
        wanted = RGB_NM if visible else _INFRARED_NM
        picks = [good[int(np.argmin(np.abs(seen - nm)))] for nm in wanted]
    return int(picks[0]), int(picks[1]), int(picks[2])


def colour_limits(values: np.ndarray, percent: float = 1.0) -> np.ndarray:
    """Limits of a linear stretch, one pair a channel.

    Parameters
    ----------
    values : ndarray, shape (3, H, W)
        NaN where nothing is known.
    percent : float
        Share of pixels saturated at either end, in percent.

    Returns
    -------
    ndarray, shape (3, 2)
        Low and high value of each channel; (0, 1) for a channel without values.
    """
    limits = np.empty((3, 2))
    for channel, image in enumerate(values):
        known = image[np.isfinite(image)]
        limits[channel] = np.percentile(known, (percent, 100.0 - percent)) if known.size else (0, 1)
    flat = limits[:, 1] <= limits[:, 0]
    limits[flat, 1] = limits[flat, 0] + 1.0
    return limits


def composite(values: np.ndarray, limits: np.ndarray, gamma: float = 0.8) -> np.ndarray:
    """Stretch three channels to a picture.

    Parameters
    ----------
    values : ndarray, shape (3, H, W)
    limits : ndarray, shape (3, 2)
        As :func:`colour_limits` gives them.
    gamma : float
        Exponent applied after the linear stretch.

    Returns
    -------
    ndarray, shape (H, W, 4), float64
        Red, green, blue, opacity in [0, 1]; pixels with a NaN are transparent.
    """
    low, high = limits[:, 0, None, None], limits[:, 1, None, None]
    known = np.isfinite(values).all(axis=0)
    scaled = np.clip((np.where(known, values, low) - low) / (high - low), 0.0, 1.0) ** gamma
    return np.concatenate([scaled, known[None]]).transpose(1, 2, 0).astype(np.float64)


def error_limits(maps: Sequence[np.ndarray]) -> tuple[float, float]:
    """Ends of one logarithmic scale for several error maps.

    Parameters
    ----------
    maps : sequence of ndarray, shape (H, W)
        Not negative; NaN where nothing is known.

    Returns
    -------
    tuple of float
        The 1st and 99.5th percentile of all positive errors together, widened to
        at least one decade and held within four.
    """
    positive = [m[np.isfinite(m) & (m > 0)] for m in maps]
    pooled = np.concatenate(positive) if positive else np.zeros(0)
    if pooled.size == 0:
        return 0.1, 1.0
    low, high = np.percentile(pooled, (1.0, 99.5))
    return float(max(min(low, high / 10), high / 1e4)), float(high)


def comparison_figure(
    reference: xr.DataArray,
    estimates: Mapping[str, xr.DataArray],
    *,
    captions: Mapping[str, str] | None = None,
    observed: Sequence[tuple[str, xr.DataArray]] = (),
    title: str = "",
    unit: str = "reflectance",
) -> Figure:
    """Draw composites above error maps, one column an estimate.

    Parameters
    ----------
    reference : xarray.DataArray, shape (C, H, W)
        The truth; first column.
    estimates : mapping of str to xarray.DataArray, shape (C, H, W)
        One column each, in order.
    captions : mapping of str to str, optional
        A second title line for an estimate, such as its figures.
    observed : sequence of (str, xarray.DataArray)
        At most two observed images, drawn small under the reference; those with
        the reference's band count are stretched as it is, others on their own.
    title : str
        Line above everything.
    unit : str
        Unit of the values, named on the colour bar.

    Returns
    -------
    matplotlib.figure.Figure
        With a canvas that can be saved at once.

    Raises
    ------
    PairError
        If an estimate's shape is not the reference's, or more than two observed
        images came.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    from .metrics import rmse_map

    if len(observed) > 2:
        raise PairError(f"expected at most 2 observed images, got {len(observed)}")
    good = cubes.good_bands(reference)
    truth = cubes.to_physical(reference)
    bands = list(composite_bands(reference))
    limits = colour_limits(truth[bands])
    maps = {}
    for name, estimate in estimates.items():
        values = cubes.to_physical(estimate)
        if values.shape != truth.shape:
            raise PairError(f"{name}: expected shape {truth.shape}, got {values.shape}")
        maps[name] = rmse_map(truth[good], values[good])
    low, high = error_limits(list(maps.values()))

    columns = 1 + len(estimates)
    side = 2.9
    tall = side * truth.shape[1] / truth.shape[2]
    size = (side * columns + 0.9, 2 * tall + (1.45 if title else 1.1))
    figure = Figure(figsize=size, dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=13)
    grid = figure.add_gridspec(2, columns)

    axes = figure.add_subplot(grid[0, 0])
    _picture(axes, composite(truth[bands], limits), "reference", _band_caption(reference, bands))
    if observed:
        inner = grid[1, 0].subgridspec(1, len(observed))
        for place, (name, image) in enumerate(observed):
            axes = figure.add_subplot(inner[0, place])
            _picture(axes, _own_composite(image, reference, bands, limits), name, _size(image))
    error_axes = []
    for column, (name, estimate) in enumerate(estimates.items(), start=1):
        axes = figure.add_subplot(grid[0, column])
        picture = composite(cubes.to_physical(estimate.isel(band=bands)), limits)
        _picture(axes, picture, name, (captions or {}).get(name, ""))
        axes = figure.add_subplot(grid[1, column])
        shown = np.ma.masked_invalid(np.maximum(maps[name], low))
        drawn = axes.imshow(shown, norm=LogNorm(low, high), cmap="magma", interpolation="nearest")
        axes.set_facecolor("0.85")
        axes.set_title(f"error of {name}", fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        error_axes.append(axes)
    if error_axes:
        bar = figure.colorbar(drawn, ax=error_axes[-1], extend="both", fraction=0.05, pad=0.03)
        bar.set_label(f"RMSE over bands ({unit}), one log scale", fontsize=9)
        bar.ax.tick_params(labelsize=8)
    return figure


def save_png(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG: whole, or not at all.

    Raises
    ------
    WriteError
        If it cannot be written; whatever stood there before still does.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        try:
            figure.savefig(partial, format="png", metadata={"Software": "napari-hsfusion"})
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"{target}: cannot be written: {error.strerror or error}") from error
    return target


def _picture(axes: object, image: np.ndarray, title: str, caption: str) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    axes.imshow(image, interpolation="nearest")
    axes.set_facecolor("0.85")
    axes.set_title(title if not caption else f"{title}\n{caption}", fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])


def _own_composite(
    image: xr.DataArray, reference: xr.DataArray, bands: list[int], limits: np.ndarray
) -> np.ndarray:
    if image.sizes["band"] == reference.sizes["band"]:
        return composite(cubes.to_physical(image.isel(band=bands)), limits)
    values = cubes.to_physical(image.isel(band=list(composite_bands(image))))
    return composite(values, colour_limits(values))


def _band_caption(cube: xr.DataArray, bands: list[int]) -> str:
    centres = cubes.wavelengths(cube)
    if centres is None:
        return "bands " + ", ".join(str(b + 1) for b in bands)
    return ", ".join(f"{centres[b]:.0f}" for b in bands) + " nm"


def _size(image: xr.DataArray) -> str:
    bands, rows, columns = image.shape
    return f"{rows}×{columns}, {bands} band{'s' if bands > 1 else ''}"
