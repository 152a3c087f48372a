"""How long and how a network is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..errors import ParameterError

SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Recipe:
    """How long and how to train.

    Attributes
    ----------
    steps : int
        Gradient steps at most.
    rate : float
        Adam's learning rate at the start.
    schedule : {"constant", "linear", "cosine"}
        How the rate falls to zero over the steps, or over the time if that is used
        up sooner.
    average : float
        Decay of the exponential moving average of the weights, warmed up.
    clip : float, optional
        Largest norm of the gradient.
    precision : {"float32", "bfloat16", "float16"}
        Of the forward pass; float16 scales the loss.
    minutes : float, optional
        Time after which to stop; the steps taken then depend on the machine.
    validate_every : int
        Steps between validations; 0 validates at the end alone.
    patience : int, optional
        Validations without a new best after which to stop.
    gain : float
        Share by which a validation must beat the last that counted to count as a new
        best for `patience`.
    save_seconds : float
        Time between saved states; 0 saves at every step.
    log_every : int
        Steps a row of the learning curve.

    Raises
    ------
    ParameterError
        If a name is unknown.
    """

    steps: int
    rate: float
    schedule: str = "constant"
    average: float = 0.999
    clip: float | None = None
    precision: str = "float32"
    minutes: float | None = None
    validate_every: int = 0
    patience: int | None = None
    gain: float = 0.0
    save_seconds: float = 300.0
    log_every: int = 50

    def __post_init__(self) -> None:
        for name, value, known in (
            ("schedule", self.schedule, SCHEDULES),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise ParameterError(f"{name}: expected one of {', '.join(known)}, got {value!r}")

    def rate_at(self, step: int, seconds: float) -> float:
        """Learning rate of the step that follows `step` steps and `seconds`."""
        gone = step / self.steps
        if self.minutes is not None:
            gone = min(1.0, max(gone, seconds / (60.0 * self.minutes)))
        if self.schedule == "linear":
            return self.rate * (1.0 - gone)
        if self.schedule == "cosine":
            return self.rate * 0.5 * (1.0 + math.cos(math.pi * gone))
        return self.rate


def best_precision(device: torch.device) -> str:
    """Precision that a device is quick in: float32 on the CPU, else what the card knows."""
    if device.type != "cuda":
        return "float32"
    known = torch.cuda.get_device_capability(device) >= (8, 0)
    return "bfloat16" if known else "float16"
