"""Parameters of the training of supervised methods."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ParameterError
from .base import Params, param


@dataclass(frozen=True)
class TrainingParams(Params):
    """How long and how a network is trained on scenes; the published budget is 2000 passes."""

    steps: int = param(20_000, "Gradient steps at most.", low=1, high=100_000_000, unit="steps")
    minutes: float | None = param(
        None,
        "Time after which the training ends, whatever steps are left; the schedule ends with it. "
        "auto sets no limit.",
        low=0.001,
        high=1e6,
        unit="minutes",
    )
    patch: int = param(
        128,
        "Side of the crops that are trained on; a multiple of the ratio of the resolutions.",
        low=8,
        high=4096,
        unit="pixels",
    )
    batch: int = param(1, "Crops a step, in each process.", low=1, high=1024, unit="crops")
    rate: float = param(1e-4, "Adam's learning rate at the start.", low=1e-7, high=0.1)
    schedule: str = param(
        "cosine",
        "How the learning rate goes: it stays constant, or falls to zero by the last step.",
        choices=("constant", "linear", "cosine"),
    )
    average: float = param(
        0.999,
        "Decay of the moving average of the weights, warmed up over the first steps; the "
        "averaged weights are tried and kept.",
        low=0,
        high=0.999999,
    )
    clip: float | None = param(
        1.0, "Largest norm of the gradient; auto clips nothing.", low=1e-6, high=1e6
    )
    precision: str = param(
        "auto",
        "Number format of the forward pass; auto takes float32 on the CPU, bfloat16 on graphics "
        "cards that know it, float16 on older ones.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    turns: bool = param(True, "Mirror crops and turn them by right angles at random.")
    snr: float | None = param(
        None,
        "Signal-to-noise ratio of both simulated images; auto adds no noise.",
        low=-20,
        high=200,
        unit="dB",
    )
    validate_every: int = param(
        500,
        "Steps between trials on the validation scenes; 0 tries at the end alone.",
        low=0,
        high=100_000_000,
        unit="steps",
    )
    validation_side: int | None = param(
        256,
        "Side of the central part of a validation scene that is restored; auto takes all of it.",
        low=16,
        high=100_000,
        unit="pixels",
    )
    patience: int | None = param(
        None,
        "Trials without a new best after which the training ends; auto never ends it early.",
        low=1,
        high=1_000_000,
        unit="trials",
    )
    save_minutes: float = param(
        5.0,
        "Time between saved states, from which an interrupted run goes on.",
        low=0,
        high=1e5,
        unit="minutes",
    )
    log_every: int = param(
        50, "Steps a row of the log and of the learning curve.", low=1, high=1_000_000, unit="steps"
    )
    memory: float = param(
        1000.0,
        "Scenes, with what a network starts from in them, that are kept in memory at most; others "
        "are read window by window.",
        low=0,
        high=1e7,
        unit="MB",
    )

    def check_ratio(self, ratio: int) -> None:
        """Make sure that crops and validation fit a ratio of the resolutions.

        Raises
        ------
        ParameterError
            If the side of the crops is no multiple of it, or that of the validation smaller.
        """
        if self.patch % ratio:
            raise ParameterError(
                f"patch: expected a multiple of the ratio {ratio}, got {self.patch}"
            )
        if self.validation_side is not None and self.validation_side < ratio:
            raise ParameterError(
                f"validation_side: expected at least the ratio {ratio}, got {self.validation_side}"
            )
