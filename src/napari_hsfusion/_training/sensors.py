"""The two sensors that training pairs are simulated for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._responses import effective_kernel, psf_note
from ..sensors.psf import PSF

_UP_REACH = 2  # coarse pixels that cubic interpolation looks at, to either side


@dataclass(frozen=True)
class Sensors:
    """Two sensors: their ratio, blur, spectral response and noise.

    Attributes
    ----------
    ratio : int
    psf : PSF
    response : ndarray, shape (c, C)
    snr : float or None
        Signal-to-noise ratio of either image, dB; None without noise.
    """

    ratio: int
    psf: PSF
    response: npt.NDArray[np.float64]
    snr: float | None = None

    def margin(self) -> int:
        """Fine pixels around a crop that its coarse pixels and their upsampling see."""
        note = psf_note(self.psf)
        kernel = effective_kernel(self.psf if isinstance(note, str) else note, self.ratio)
        reach = 0
        for first, taps in zip(kernel.first, kernel.weights.shape, strict=True):
            reach = max(reach, -first, first + taps - self.ratio)
        return self.ratio * (_UP_REACH + -(-reach // self.ratio))
