"""How a parameter is declared, described, converted and held to its range.

The graphical form, the command line's ``--set name=value``, the run record and
the Python API all come from these declarations; nothing is described twice.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..errors import ParameterError


@dataclass(frozen=True)
class FieldSpec:
    """What a form, a help page or a validator needs to know of one parameter."""

    name: str
    type: type
    optional: bool
    default: Any
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    unit: str
    tooltip: str
    applies: Mapping[str, tuple[Any, ...]]
    unless: Mapping[str, tuple[Any, ...]]
    file: str


def param(
    default: Any,
    tooltip: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    unit: str = "",
    applies: Mapping[str, tuple[Any, ...]] | None = None,
    unless: Mapping[str, tuple[Any, ...]] | None = None,
    file: str = "",
) -> Any:
    """Declare one parameter of a :class:`Params` class.

    `applies` names the other parameters' values under which this one is read, `unless`
    those that, all together, leave it unread; setting it then is an error rather than an
    option without effect. `file` is the ending of the files that a text names.
    """
    metadata = {
        "tooltip": tooltip,
        "low": low,
        "high": high,
        "choices": choices,
        "unit": unit,
        "applies": dict(applies or {}),
        "unless": dict(unless or {}),
        "file": file,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Params:
    """Base of all parameter classes: validated when made, never changed after."""

    def __post_init__(self) -> None:
        for spec in self.describe():
            object.__setattr__(self, spec.name, _checked(spec, getattr(self, spec.name)))

    @classmethod
    def describe(cls) -> tuple[FieldSpec, ...]:
        """Describe every parameter, in the order of definition."""
        hints = typing.get_type_hints(cls)
        specs = []
        for field in dataclasses.fields(cls):
            kind, optional = _plain_type(hints[field.name])
            specs.append(
                FieldSpec(
                    name=field.name,
                    type=kind,
                    optional=optional,
                    default=field.default,
                    **field.metadata,
                )
            )
        return tuple(specs)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], base: Self | None = None) -> Self:
        """Take `base` (a preset) and change what `settings` names.

        Parameters
        ----------
        settings : mapping
            Values, or their text form (``"8"``, ``"true"``, ``"auto"``).
        base : Params, optional
            Starting values; the class's defaults without it.

        Raises
        ------
        ParameterError
            If a name is unknown, a value is out of range, or a parameter is set
            that nothing reads under the other values.
        """
        start = base if base is not None else cls()
        specs = {spec.name: spec for spec in cls.describe()}
        for name in settings:
            if name not in specs:
                raise ParameterError(
                    f"{cls.__name__}: unknown parameter {name!r}; known: {', '.join(specs)}"
                )
        made = dataclasses.replace(start, **dict(settings))
        for name in settings:
            made._check_applies(specs[name])
        return made

    def _check_applies(self, spec: FieldSpec) -> None:
        for other, allowed in spec.applies.items():
            value = getattr(self, other)
            if value not in allowed:
                wanted = " or ".join(f"{other}={_text(v)}" for v in allowed)
                raise ParameterError(
                    f"{spec.name} has no effect with {other}={_text(value)}; it needs {wanted}"
                )
        if spec.unless and all(getattr(self, k) in v for k, v in spec.unless.items()):
            now = " and ".join(f"{k}={_text(getattr(self, k))}" for k in spec.unless)
            raise ParameterError(f"{spec.name} has no effect with {now}")

    def to_record(self) -> dict[str, Any]:
        """JSON-able dictionary of every value."""
        return dataclasses.asdict(self)


def _plain_type(hint: Any) -> tuple[type, bool]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = [a for a in typing.get_args(hint) if a is not type(None)]
        return kinds[0], True
    return hint, False


def _text(value: Any) -> str:
    if value is None:
        return "auto"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _checked(spec: FieldSpec, value: Any) -> Any:
    """Convert `value` to the parameter's type and hold it to its range."""
    if isinstance(value, str):
        value = value.strip()
    if value is None or (isinstance(value, str) and value.lower() in ("auto", "none")):
        if spec.optional:
            return None
        if spec.type is not str:
            raise ParameterError(f"{spec.name}: expected {_expected(spec)}, got {value!r}")
    try:
        converted = _convert(spec.type, value)
    except (TypeError, ValueError):
        raise ParameterError(f"{spec.name}: expected {_expected(spec)}, got {value!r}") from None
    if spec.choices and converted not in spec.choices:
        raise ParameterError(f"{spec.name}: expected {_expected(spec)}, got {value!r}")
    if spec.type in (int, float):
        too_low = spec.low is not None and converted < spec.low
        too_high = spec.high is not None and converted > spec.high
        if too_low or too_high or not math.isfinite(converted):
            raise ParameterError(f"{spec.name}: expected {_expected(spec)}, got {value!r}")
    return converted


def _convert(kind: type, value: Any) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        lowered = str(value).lower()
        if lowered in ("true", "yes", "on", "1"):
            return True
        if lowered in ("false", "no", "off", "0"):
            return False
        raise ValueError(value)
    if isinstance(value, bool):
        raise TypeError(value)
    if kind is int:
        number = int(value) if isinstance(value, str) else value
        if int(number) != number:
            raise ValueError(value)
        return int(number)
    if kind is str and not isinstance(value, str):
        raise TypeError(value)
    return kind(value)


def _expected(spec: FieldSpec) -> str:
    if spec.choices:
        return "one of " + ", ".join(spec.choices)
    kind = {int: "a whole number", float: "a number", bool: "true or false"}.get(spec.type, "text")
    if spec.low is not None and spec.high is not None:
        kind += f" from {spec.low:g} to {spec.high:g}"
    elif spec.low is not None:
        kind += f" of at least {spec.low:g}"
    elif spec.high is not None:
        kind += f" of at most {spec.high:g}"
    unit = f" ({spec.unit})" if spec.unit else ""
    return kind + unit + (", or auto" if spec.optional else "")
