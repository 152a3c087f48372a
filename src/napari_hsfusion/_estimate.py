"""Responses of a pair: given, stored with it, or estimated from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import cube as cubes
from ._observe import Pair
from ._responses import Floats, resolve_psf, resolve_srf, spatial_operator
from .errors import PairError
from .sensors.psf import ESTIMATED, LEAST_NEGATIVE_ESTIMATED, PSF, check_kernel
from .sensors.srf import Response

_FAR = 5.0


@dataclass(frozen=True)
class Responses:
    """Responses of a pair, and how they became known.

    Attributes
    ----------
    psf : PSF
    srf : Response
        Matrix (c, C) over all bands of both images, rows summing to one; a band
        of the HR-MSI that is not used has a row of zeros if it was estimated.
    gain : ndarray, shape (c,), float64
        Units of the HR-MSI per unit of the LR-HSI: 1 unless it was estimated.
    record : mapping
        JSON-able; what an estimation says of itself, empty where both were given.
    """

    psf: PSF
    srf: Response
    gain: Floats
    record: Mapping[str, Any]

    @property
    def matrix(self) -> Floats:
        """``gain x srf``, shape (c, C): takes the LR-HSI to the HR-MSI's units."""
        return np.asarray(self.gain[:, None] * self.srf.matrix)


def find_responses(pair: Pair, psf: Any, srf: Any) -> Responses:
    """Responses as given, as stored with the pair, or estimated from it.

    Parameters
    ----------
    pair : Pair
    psf, srf
        As :func:`~napari_hsfusion.api.fuse` takes them; `srf` may be a
        :class:`Responses`, whose gain counts then.

    Raises
    ------
    ResponseError
        If one is neither given nor stored, or malformed, or cannot be estimated.
    PairError
        If the SRF's bands are not those of the images.
    """
    gain = np.ones(pair.hr_msi.sizes["band"])
    if isinstance(srf, Responses):
        psf = srf.psf if psf is None else psf
        gain, srf = srf.gain, srf.srf
    spread = resolve_psf(psf, pair.lr_hsi, pair.hr_msi)
    response = resolve_srf(srf, pair.lr_hsi, pair.hr_msi)
    if response is not None:
        if spread is not None:
            return Responses(spread, response, gain, {})
        return _estimate_psf(pair, response, gain)
    return _estimate_srf(pair, spread)


def check_units(pair: Pair, responses: Responses) -> None:
    """Make sure that both images are in the units that the responses say.

    The mean of each band of the HR-MSI is compared with that of the LR-HSI seen
    through the SRF; estimated responses come with the units they found.

    Raises
    ------
    PairError
        If the median band is more than five times too large or too small.
    """
    found = np.asarray(np.nanmean(pair.y[pair.bands_y], axis=(1, 2), dtype=np.float64))
    seen = np.asarray(np.nanmean(pair.x[pair.bands_x], axis=(1, 2), dtype=np.float64))
    expected = pair.used_response(responses.matrix) @ seen
    positive = (found > 0) & (expected > 0)
    if not positive.any():
        return
    factor = float(np.median(found[positive] / expected[positive]))
    if not 1 / _FAR <= factor <= _FAR:
        raise PairError(
            f"the values of the HR-MSI are {factor:.3g} times what the LR-HSI gives through the "
            "spectral response: expected both images in one unit (the same scale factor); convert "
            "one of them, or have the responses estimated from the pair, which finds the units"
        )


def _estimate_psf(pair: Pair, response: Response, gain: Floats) -> Responses:
    from .engine.responses import estimate_psf

    found = estimate_psf(
        pair.x[pair.bands_x],
        pair.y[pair.bands_y],
        pair.used_response(gain[:, None] * response.matrix),
        pair.ratio,
        valid_x=pair.valid_x(),
        valid_y=pair.valid_y(),
    )
    return Responses(_kernel(found.kernel), response, gain, {"psf": found.report})


def _estimate_srf(pair: Pair, psf: PSF | None) -> Responses:
    from .engine.responses import estimate_both, estimate_srf

    x, y = pair.x[pair.bands_x], pair.y[pair.bands_y]
    centres = cubes.wavelengths(pair.lr_hsi)
    known: dict[str, Any] = {
        "valid_x": pair.valid_x(),
        "valid_y": pair.valid_y(),
        "wavelength": None if centres is None else centres[pair.bands_x],
    }
    if psf is not None:
        forward = spatial_operator(psf, pair.shape_hr, pair.ratio).forward
        spectral = estimate_srf(x, y, forward, **known)
        record = {"srf": spectral.report}
    else:
        both = estimate_both(x, y, pair.ratio, **known)
        psf, spectral, record = _kernel(both.kernel), both.srf, {"both": both.report}
    matrix = np.zeros((pair.bands_y.size, pair.bands_x.size))
    matrix[np.ix_(pair.bands_y, pair.bands_x)] = spectral.matrix
    gain = np.ones(pair.bands_y.size)
    gain[pair.bands_y] = spectral.gain
    names = [f"B{k}" for k in range(1, len(matrix) + 1)]
    if "band_name" in pair.hr_msi.coords:
        names = [str(name) for name in pair.hr_msi.coords["band_name"].values]
    response = Response(matrix, centres, tuple(names), ESTIMATED, ESTIMATED)
    return Responses(psf, response, gain, record)


def _kernel(kernel: Floats) -> PSF:
    # the check that the record passes when it is read back
    checked = check_kernel(kernel, "the PSF estimated from the pair", LEAST_NEGATIVE_ESTIMATED)
    return PSF("kernel", kernel=checked, source=ESTIMATED)
