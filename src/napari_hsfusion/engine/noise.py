"""Noise levels of a pair, estimated from the pair itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from .operators import SpatialDegradation, SpectralResponse

Array = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]


def estimate_noise_x(x: Array, valid: BoolArray | None = None) -> float:
    """Standard deviation of white noise in a hyperspectral image.

    The spectra span few directions; the eigenvalues of their second-moment
    matrix that random-matrix theory (Marchenko and Pastur, 1967) cannot tell
    from noise are averaged, the number of signal directions and the level being
    settled in turn (Kritchman and Nadler, IEEE TSP 57:3930, 2009).

    Parameters
    ----------
    x : array, shape (C, h, w)
        Finite values.
    valid : array of bool, shape (h, w), optional
        Pixels to use.

    Returns
    -------
    float
        In the unit of `x`; model error outside the signal directions counts in.
    """
    spectra = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    if valid is not None:
        spectra = spectra[:, valid.ravel()]
    bands, n = spectra.shape
    if min(bands, n) < 3:
        return 0.0
    values = np.linalg.eigvalsh(spectra @ spectra.T / n)[::-1]
    values = np.clip(values[: min(bands, n)], 0, None)
    signal = 0
    variance = 0.0
    for _ in range(50):
        rest = values[signal:]
        variance = rest.sum() / ((bands - signal) * max(1.0 - signal / n, 1.0 / n))
        edge = variance * (1 + np.sqrt((bands - signal) / n)) ** 2
        count = min(int((values > edge).sum()), min(bands, n) - 1)
        if count <= signal:
            break
        signal = count
    return float(np.sqrt(variance))


def estimate_noise_y(
    x: Array,
    y: Array,
    spatial: SpatialDegradation,
    spectral: SpectralResponse,
    sigma_x: float,
    valid_x: BoolArray,
    valid_y: BoolArray,
) -> float:
    """Standard deviation of white noise in the multispectral image.

    Both ways from the scene to a low-resolution multispectral image must agree:
    ``H(Y) - R X`` holds nothing but noise of variance
    ``sy^2 energy(H) + sx^2 |R_b|^2``. Responses that are off raise the estimate,
    which then rightly trusts the image less.

    Returns
    -------
    float
        In the unit of `y`; 0 where the residual is below what `sigma_x` explains.
    """
    low = spatial.forward(torch.as_tensor(np.asarray(y, dtype=np.float64))).numpy()
    residual = low - np.tensordot(spectral.matrix, np.asarray(x, dtype=np.float64), axes=1)
    usable = valid_x & ~spatial.footprint(~valid_y)
    if not usable.any():
        usable = valid_x
    from_x = sigma_x**2 * (spectral.matrix**2).sum(1)
    from_y = (residual[:, usable] ** 2).mean(1) - from_x
    return float(np.sqrt(max(from_y.mean(), 0.0) / spatial.energy()))
