"""Quality of a fused cube where there is no reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import cube as cubes
from ._estimate import Responses, find_responses
from ._grid import Bools
from ._observe import Pair, as_image, make_pair, used_bands
from ._responses import Floats, spatial_operator, stored
from .errors import PairError

if TYPE_CHECKING:
    from .metrics import Consistency


def assess(
    lr_hsi: Any,
    hr_msi: Any,
    fused: Any,
    *,
    scale: int | None = None,
    psf: Any = None,
    srf: Any = None,
) -> dict[str, Any]:
    """Measure a fused cube against the pair it was made of.

    Parameters
    ----------
    lr_hsi, hr_msi : xarray.DataArray, array_like of shape (band, y, x), or path
        Bands that are marked as bad, or empty, have no part.
    fused : xarray.DataArray, array_like of shape (C, H, W), or path
        In the unit of the pair, likewise.
    scale : int, optional
        Ratio of the resolutions; checked against the sizes.
    psf, srf : optional
        As :func:`~napari_hsfusion.api.fuse` takes them; one that is neither given nor
        stored with the pair is what the fused cube's record says.

    Returns
    -------
    dict
        ``psnr_hsi``, ``psnr_msi`` (dB), ``sam_hsi``, ``sam_msi`` (degrees),
        ``masked_hsi``, ``masked_msi`` (pixels) of
        :func:`napari_hsfusion.metrics.consistency`; ``d_lambda``, ``d_s`` and ``hqnr``
        of :func:`napari_hsfusion.metrics.hqnr`; ``bands_used`` and ``bands``.

    Raises
    ------
    PairError
        If sizes or bands do not fit, or no band is left.
    ResponseError
        If a response is neither given nor stored, or malformed.
    CubeError
        If a metric has no value, such as one whose windows all touch masked pixels.
    """
    from . import metrics

    seen = _observed(lr_hsi, hr_msi, fused, scale, psf, srf)
    return {
        **metrics.consistency(*seen.images, seen.forward, seen.matrix).numbers(),
        **metrics.hqnr(*seen.images, seen.forward, seen.matrix),
        "bands_used": int(np.count_nonzero(seen.used)),
        "bands": int(seen.used.size),
    }


def consistency(
    lr_hsi: Any,
    hr_msi: Any,
    fused: Any,
    *,
    scale: int | None = None,
    psf: Any = None,
    srf: Any = None,
) -> Consistency:
    """Compare a fused cube, seen as the two sensors see it, with what they saw.

    Parameters
    ----------
    lr_hsi, hr_msi, fused, scale, psf, srf
        As :func:`assess` takes them.

    Returns
    -------
    napari_hsfusion.metrics.Consistency
        PSNR, SAM and, pixel by pixel, the RMSE over the bands and the spectral angle
        of the residual with either image.

    Raises
    ------
    PairError, ResponseError, CubeError
        As :func:`assess` raises them.
    """
    from . import metrics

    seen = _observed(lr_hsi, hr_msi, fused, scale, psf, srf)
    return metrics.consistency(*seen.images, seen.forward, seen.matrix)


@dataclass(frozen=True)
class _Observed:
    """LR-HSI, HR-MSI and estimate in the bands used, and the responses between them."""

    images: tuple[npt.NDArray[np.floating], npt.NDArray[np.floating], npt.NDArray[np.floating]]
    forward: Callable[[Floats], Floats]
    matrix: Floats
    used: Bools


def _observed(lr_hsi: Any, hr_msi: Any, fused: Any, scale: Any, psf: Any, srf: Any) -> _Observed:
    import torch

    pair = make_pair(lr_hsi, hr_msi, scale)
    estimate = as_image(fused, "fused cube")
    expected = (pair.x.shape[0], *pair.shape_hr)
    if estimate.shape != expected:
        raise PairError(
            f"the fused cube has shape (band, y, x) {estimate.shape}, the pair's has {expected}"
        )
    responses = _responses(pair, psf, srf, estimate.attrs.get("record") or {})
    values = cubes.to_physical(estimate)
    used = pair.bands_x & used_bands(estimate, values, "fused cube")
    if not used.any():
        raise PairError("LR-HSI and fused cube: no band is good and has values in both")
    pair = replace(pair, bands_x=used)
    spatial = spatial_operator(responses.psf, pair.shape_hr, pair.ratio)

    def forward(image: Floats) -> Floats:
        return np.asarray(spatial.forward(torch.from_numpy(np.ascontiguousarray(image))).numpy())

    return _Observed(
        images=(pair.x[used], pair.y[pair.bands_y], values[used]),
        forward=forward,
        matrix=pair.used_response(responses.matrix),
        used=used,
    )


def _responses(pair: Pair, psf: Any, srf: Any, record: Mapping[str, Any]) -> Responses:
    """Responses as given or stored with the pair; else those that the run used."""
    images = (pair.lr_hsi, pair.hr_msi)
    used = {
        key: record[key]
        for key, given in (("psf", psf), ("srf", srf))
        if given is None and stored(key, *images) is None and key in record
    }
    if not used:
        return find_responses(pair, psf, srf)
    told = {**(pair.hr_msi.attrs.get("observation") or {}), **used}
    known = replace(pair, hr_msi=pair.hr_msi.assign_attrs(observation=told))
    found = find_responses(known, psf, srf)
    if "srf" in used and "msi_gain" in record:
        found = replace(found, gain=np.asarray(record["msi_gain"], dtype=np.float64))
    return found
