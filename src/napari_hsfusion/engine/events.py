"""What a running method says: one generator of these events is all there is.

The Python API, the command line and the napari worker drain the same generator.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..errors import Cancelled


@dataclass(frozen=True)
class Started:
    """First event of a run; again where it starts anew with less memory, before a :class:`Notice`.

    Attributes
    ----------
    method : str
        Registered name of the method.
    stages : mapping of str to int
        Stage names in order, with the number of steps each will take.
    estimate : mapping of str to float
        What the run is expected to cost, where it is known: ``seconds``,
        ``bytes``.
    """

    method: str
    stages: Mapping[str, int]
    estimate: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One step of one stage is done.

    Attributes
    ----------
    stage : str
    index, total : int
        This step, counted from 1, of how many.
    loss : float or None
        The stage's objective: training loss, or data misfit.
    """

    stage: str
    index: int
    total: int
    loss: float | None = None


@dataclass(frozen=True)
class Preview:
    """The estimate as it stands, in factored form, so that a preview costs a band.

    Attributes
    ----------
    stage : str
    index, total : int
    coefficients : torch.Tensor, shape (d, H, W)
    basis : torch.Tensor, shape (d, C)
        The estimate is the sum over d of coefficients times basis.
    scale : float
        Factor from the engine's values to those of the input images.
    stream : torch.cuda.Stream, optional
        On which both were copied: who reads them there waits for no step after.
    """

    stage: str
    index: int
    total: int
    coefficients: torch.Tensor
    basis: torch.Tensor
    scale: float = 1.0
    stream: torch.cuda.Stream | None = None

    def bands(self, bands: int | list[int]) -> np.ndarray:
        """Estimate of one band (H, W) or several (n, H, W), 0-based, input units."""
        chosen = [bands] if isinstance(bands, int) else list(bands)
        with nullcontext() if self.stream is None else torch.cuda.stream(self.stream):
            # an index that comes from a list waits for the device, and for this stream alone
            columns = self.basis[:, chosen]
            image = torch.einsum("dhw,db->bhw", self.coefficients, columns) * self.scale
            out = image.detach().cpu().numpy()
        return out[0] if isinstance(bands, int) else out


@dataclass(frozen=True)
class Notice:
    """Something that whoever started the run should know; the run goes on.

    Attributes
    ----------
    text : str
        Whole sentences.
    """

    text: str


@dataclass(frozen=True)
class Finished:
    """Last event of a run.

    Attributes
    ----------
    cube : numpy.ndarray, shape (C, H, W)
        The fused cube in the units of the inputs; NaN where nothing is known.
    record : mapping
        JSON-able: every parameter, the seed, device, versions, estimated noise.
    deviation : numpy.ndarray, shape (C, H, W), or None
        Standard deviation of every value of the cube, of a run that drew samples.
    """

    cube: np.ndarray
    record: Mapping[str, Any]
    deviation: np.ndarray | None = None


Event = Started | Step | Preview | Notice | Finished


@dataclass(frozen=True)
class Measured:
    """A network in training was tried on scenes that it does not learn from.

    Attributes
    ----------
    stage : str
        The training stage.
    index, total : int
        Its steps so far, of how many.
    metric : float
        Higher is better.
    best : float
        The highest so far, this one counted in.
    """

    stage: str
    index: int
    total: int
    metric: float
    best: float


class CancelToken:
    """A flag that a run looks at before every step; safe across threads."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask the run to stop before its next step."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise :class:`~napari_hsfusion.errors.Cancelled` if asked to stop."""
        if self._event.is_set():
            raise Cancelled("the run was cancelled; nothing was kept")
