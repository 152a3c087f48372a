"""Options of a reproduction as callers give them: checked, converted, or refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ParameterError
from ..params import ARGS_DIFF_PRESETS, ArgsDiffParams
from ..params.training import TrainingParams

UNITS = ("minutes", "steps")
"""What a budget is counted in."""

_OWN = ("steps", "minutes", "validate_every", "patience")


@dataclass(frozen=True)
class Budget:
    """What every design is trained for.

    Attributes
    ----------
    unit : {"minutes", "steps"}
    amount : float
    """

    unit: str
    amount: float

    @classmethod
    def of(cls, given: Any) -> Budget:
        """Budget from its text, as ``minutes=10``, or from a mapping.

        Raises
        ------
        ParameterError
            If it is no amount of one unit.
        """
        if isinstance(given, Budget):
            return given
        if isinstance(given, str):
            name, sign, value = given.partition("=")
            given = {name.strip(): value.strip()} if sign else {}
        if isinstance(given, Mapping) and len(given) == 1:
            unit, amount = next(iter(given.items()))
            if unit in UNITS:
                made = getattr(TrainingParams.from_settings({unit: amount}), unit)
                if made is not None:
                    return cls(unit, made)
        raise ParameterError("budget: expected minutes=NUMBER or steps=NUMBER, a design")

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit}"

    def settings(self) -> dict[str, Any]:
        """Training parameters of this budget."""
        most = next(s.high for s in TrainingParams.describe() if s.name == "steps")
        return {"steps": int(most or 0), "minutes": None, self.unit: self.amount}


def table_names(tables: Iterable[str] | str | None) -> tuple[str, ...] | None:
    """Names of tables, from a list or from text with commas; None for all of them."""
    if tables is None:
        return None
    listed = tables.split(",") if isinstance(tables, str) else tables
    return tuple(str(name).strip() for name in listed)


def shared_design(design: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options that all designs share, without the start, which has an option of its own."""
    given = dict(design or {})
    if "start" in given:
        raise ParameterError("design: start has an option of its own; leave it out")
    return given


def left_out(value: Any) -> bool:
    """Whether an option was not given."""
    return value is None or (isinstance(value, list | tuple | dict) and not value)


def refuse(experiment: str, known: Mapping[str, str], **options: Any) -> None:
    """Make sure that options of other experiments are left out."""
    for name, value in options.items():
        if not left_out(value):
            raise ParameterError(f"{name} has no effect with {experiment}: {known[name]}")


FOR_ARGS = {
    "size": "scenes are cropped by the training parameters patch and validation_side",
    "snr": "give it as a training parameter (snr, --set snr=…)",
    "networks": "the weights of every design are kept in the folder of the study",
}
"""Options of the other experiments, and what takes their place with EMR-Diff."""

FOR_EMR = {
    "val": "networks learn from each scene's own pair, and the scenes of data are scored",
    "start": "the published sampler starts from noise",
    "design": "give parameters of the method instead (params, --set)",
}
"""Options of EMR-Diff, and what takes their place in the other experiments."""


def signal_to_noise(value: Any) -> float | None:
    """Signal-to-noise ratio in dB; 35 as published without one, None for no noise."""
    if value is None:
        return 35.0
    if str(value).strip().lower() == "none":
        return None
    try:
        level = float(value)
    except (TypeError, ValueError):
        level = float("nan")
    if isinstance(value, bool) or not -20 <= level <= 200:
        raise ParameterError(f"snr: expected a number from -20 to 200 (dB), or none, got {value!r}")
    return level


def args_values(params: Any, settings: Mapping[str, Any]) -> tuple[ArgsDiffParams, tuple[str, ...]]:
    """Parameters that all rows share, and the names of those that were set."""
    base = ARGS_DIFF_PRESETS["paper"]
    if isinstance(params, ArgsDiffParams):
        known = base.to_record()
        changes = {k: v for k, v in params.to_record().items() if v != known[k]} | dict(settings)
    elif params is None or isinstance(params, Mapping):
        changes = {**(params or {}), **settings}
    else:
        raise ParameterError(f"params: expected ArgsDiffParams, got {type(params).__name__}")
    for name, why in _ARGS_OWN.items():
        if name in changes:
            raise ParameterError(f"{name} has no effect here: {why}")
    made = ArgsDiffParams.from_settings(changes, base=base)
    if made.d is None:
        raise ParameterError("d: expected a whole number, got auto")
    return made, tuple(sorted(changes))


_ARGS_OWN = {
    "spatial_steps": "the budget sets it",
    "patience": "the budget sets how long networks are trained",
    "spectral_steps": "it goes with the budget, in the published proportion",
    "sampler": "the experiments are of the published sampler",
}


def training_values(params: Any, settings: Mapping[str, Any], budget: Budget) -> TrainingParams:
    """Training parameters of every design of EMR-Diff: what is set, and the budget."""
    changes = dict(settings)
    base: TrainingParams | None = None
    if isinstance(params, ArgsDiffParams):
        raise ParameterError(f"params: expected TrainingParams, got {type(params).__name__}")
    if isinstance(params, TrainingParams):
        base = params
    else:
        changes = {**(params or {}), **changes}
    for name in _OWN:
        if name in changes:
            raise ParameterError(
                f"{name} has no effect here: every design is trained for the whole budget, then "
                "scored"
            )
    fixed = {"validate_every": 0, "patience": None, **budget.settings()}
    return TrainingParams.from_settings({**changes, **fixed}, base=base)
