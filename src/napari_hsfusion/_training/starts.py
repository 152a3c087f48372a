"""What a network starts from in place of interpolation: the closed-form estimate of a pair."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..engine.emr.start import start_estimate
from ..engine.events import CancelToken
from ..engine.observation import Observation
from ..engine.operators import SpatialDegradation, SpectralResponse
from .sensors import Sensors


def subspace_start(
    coarse: Tensor,
    msi: Tensor,
    spatial: SpatialDegradation,
    sensors: Sensors,
    sigmas: tuple[float, float],
    valid: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None = None,
    cancel: CancelToken | None = None,
) -> Tensor:
    """Closed-form estimate, as :func:`~.engine.emr.start.start_estimate` gives it at a fusion.

    Parameters
    ----------
    coarse : Tensor, shape (C, h, w)
    msi : Tensor, shape (c, H, W)
    spatial : SpatialDegradation
        From (H, W) to (h, w).
    sensors : Sensors
    sigmas : (float, float)
        Noise of both images; estimated where it is 0, as at a fusion.
    valid : (ndarray of bool (h, w), ndarray of bool (H, W)), optional
        False where a pixel of either image is not to be used.
    cancel : CancelToken, optional

    Returns
    -------
    Tensor, shape (C, H, W)
        On the device of `coarse`.
    """
    seen, known = valid if valid is not None else (None, None)
    pair = Observation(
        coarse.cpu().numpy(),
        msi.cpu().numpy(),
        spatial,
        SpectralResponse(sensors.response),
        valid_x=seen,
        valid_y=known,
        noise_x=sigmas[0] or None,
        noise_y=sigmas[1] or None,
    )
    if cancel is not None:
        cancel.check()
    problem = pair.prepare(coarse.device, coarse.dtype)
    return start_estimate(problem, "subspace") * problem.scale
