"""A form made from a method's parameter class: nothing about a parameter is said twice."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import CheckBox, ComboBox, Container, LineEdit, SpinBox
from magicgui.widgets.bases import ValueWidget
from psygnal import Signal

from ..errors import ParameterError
from ..params import Params
from ..params.base import FieldSpec

_LARGEST = 2**31 - 1


class ParamsForm(Container):
    """Every parameter of a method, with its tooltip and range.

    Those that nothing reads under the others' values are hidden, and left out.

    Parameters
    ----------
    base : Params
        The preset to start from.
    """

    edited = Signal()

    def __init__(self, base: Params) -> None:
        super().__init__(labels=True)
        self.margins = (0, 0, 0, 0)
        self._specs: dict[str, FieldSpec] = {}
        self._fields: dict[str, ValueWidget] = {}
        self._base = base
        self._loading = False
        self.load(base)

    def load(self, base: Params) -> None:
        """Show another preset, of this method or another."""
        self._loading = True
        try:
            if type(base) is not type(self._base) or not self._fields:
                self._build(base)
            self._base = base
            for name, field in self._fields.items():
                field.value = _shown(self._specs[name], getattr(base, name))
        finally:
            self._loading = False
        self._show_applicable()

    def set_value(self, name: str, value: Any) -> None:
        """Set one parameter, as if it were typed in.

        Raises
        ------
        ParameterError
            If there is no such parameter.
        """
        if name not in self._fields:
            raise ParameterError(f"unknown parameter {name!r}; known: {', '.join(self._fields)}")
        self._fields[name].value = _shown(self._specs[name], value)

    def changes(self) -> dict[str, Any]:
        """Parameters that differ from the preset, those left out that nothing reads.

        Raises
        ------
        ParameterError
            Naming the parameter, what was expected and what came.
        """
        typed = {
            name: field.value
            for name, field in self._fields.items()
            if self._applies(name) and field.value != _shown(self._specs[name], self._value(name))
        }
        made = type(self._base).from_settings(typed, base=self._base)
        return {
            name: getattr(made, name) for name in typed if getattr(made, name) != self._value(name)
        }

    @property
    def applicable(self) -> list[str]:
        """Names of the parameters that are read under the values shown."""
        return [name for name in self._fields if self._applies(name)]

    def _value(self, name: str) -> Any:
        return getattr(self._base, name)

    def _build(self, base: Params) -> None:
        self.clear()
        self._specs = {spec.name: spec for spec in base.describe()}
        self._fields = {}
        for spec in self._specs.values():
            field = _field(spec)
            field.changed.connect(self._field_changed)
            self._fields[spec.name] = field
            self.append(field)

    def _field_changed(self, _: Any) -> None:
        if not self._loading:
            self._show_applicable()
            self.edited.emit()

    def _show_applicable(self) -> None:
        for name, field in self._fields.items():
            if self._specs[name].applies:
                field.visible = self._applies(name)

    def _applies(self, name: str) -> bool:
        for other, allowed in self._specs[name].applies.items():
            if self._fields[other].value not in allowed or not self._applies(other):
                return False
        return True


def _field(spec: FieldSpec) -> ValueWidget:
    unit = f" [{spec.unit}]" if spec.unit else ""
    words: dict[str, Any] = {
        "name": spec.name,
        "label": spec.name.replace("_", " "),
        "tooltip": f"{spec.tooltip}{unit}{_range(spec)}",
    }
    if spec.choices:
        return ComboBox(choices=list(spec.choices), **words)
    if spec.type is bool:
        return CheckBox(**{**words, "text": ""})
    if spec.type is int and not spec.optional:
        low = -_LARGEST if spec.low is None else int(spec.low)
        high = _LARGEST if spec.high is None else min(int(spec.high), _LARGEST)
        return SpinBox(min=low, max=high, value=low, **words)
    # a line takes what no spin box does: 1e-8, and auto
    return LineEdit(**words)


def _range(spec: FieldSpec) -> str:
    if spec.choices or spec.type is bool:
        return ""
    low = "" if spec.low is None else f"from {spec.low:g} "
    high = "" if spec.high is None else f"to {spec.high:g}"
    auto = " or auto" if spec.optional else ""
    return f" ({(low + high).strip()}{auto})" if low or high or auto else ""


def _shown(spec: FieldSpec, value: Any) -> Any:
    """Value as the field holds it."""
    if spec.choices or spec.type is bool or (spec.type is int and not spec.optional):
        return value
    if value is None:
        return "auto"
    return value if isinstance(value, str) else f"{value!r}"
