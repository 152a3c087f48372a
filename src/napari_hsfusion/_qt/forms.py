"""A form made from a method's parameter class: nothing about a parameter is said twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, Container, FileEdit, LineEdit, SpinBox
from magicgui.widgets.bases import ValueWidget
from psygnal import Signal

from ..errors import ParameterError
from ..params import Params
from ..params.base import FieldSpec
from .rows import narrow_file

_LARGEST = 2**31 - 1

Field = ValueWidget | FileEdit


class ParamsForm(Container):
    """Every parameter of a method, with its tooltip and range.

    Those that nothing reads under the others' values are hidden, and left out.

    Parameters
    ----------
    base : Params
        The preset to start from.
    only : sequence of str, optional
        The parameters that are shown; those left out stay as they are in the preset.
    """

    edited = Signal()

    def __init__(self, base: Params, only: Sequence[str] | None = None) -> None:
        super().__init__(labels=True)
        self.margins = (0, 0, 0, 0)
        self._only = only
        self._specs: dict[str, FieldSpec] = {}
        self._fields: dict[str, Field] = {}
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
            for name in self._fields:
                self._put(name, getattr(base, name))
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
        self._put(name, value)

    def typed(self, name: str) -> Any:
        """What a field holds; None if there is no such parameter, or nothing reads it."""
        return self._now(name) if name in self._fields and self._applies(name) else None

    def changes(self) -> dict[str, Any]:
        """Parameters that differ from the preset, those left out that nothing reads.

        Raises
        ------
        ParameterError
            Naming the parameter, what was expected and what came.
        """
        typed = {
            name: _typed(field)
            for name, field in self._fields.items()
            if self._applies(name) and _typed(field) != _shown(self._specs[name], self._value(name))
        }
        made = type(self._base).from_settings(typed, base=self._base)
        return {
            name: getattr(made, name) for name in typed if getattr(made, name) != self._value(name)
        }

    @property
    def applicable(self) -> list[str]:
        """Names of the parameters that are read under the values shown."""
        return [name for name in self._fields if self._applies(name)]

    def _put(self, name: str, value: Any) -> None:
        field, shown = self._fields[name], _shown(self._specs[name], value)
        if isinstance(field, FileEdit):
            # the line as it is: set as a value it would become an absolute path, auto too
            field.line_edit.value = "" if shown == "auto" else shown
        else:
            field.value = shown

    def _value(self, name: str) -> Any:
        return getattr(self._base, name)

    def _build(self, base: Params) -> None:
        self.clear()
        self._specs = {
            spec.name: spec
            for spec in base.describe()
            if self._only is None or spec.name in self._only
        }
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
            if self._specs[name].applies or self._specs[name].unless:
                field.visible = self._applies(name)

    def _applies(self, name: str) -> bool:
        spec = self._specs[name]
        for other, allowed in spec.applies.items():
            if self._now(other) not in allowed:
                return False
            if other in self._fields and not self._applies(other):
                return False
        unread = [self._now(other) in those for other, those in spec.unless.items()]
        return not unread or not all(unread)

    def _now(self, name: str) -> Any:
        field = self._fields.get(name)
        if field is None:
            return self._value(name)
        value = _typed(field)
        if isinstance(value, str) and self._specs[name].type in (int, float):
            try:  # a number is the same however it is written
                return float(value)
            except ValueError:
                return value
        return value


def _field(spec: FieldSpec) -> Field:
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
    if spec.file:
        return _file_field(spec, words)
    # a line takes what no spin box does: 1e-8, and auto
    return LineEdit(**words)


def _file_field(spec: FieldSpec, words: dict[str, Any]) -> FileEdit:
    field = FileEdit(
        mode=FileDialogMode.EXISTING_FILE,
        filter=f"{spec.name.replace('_', ' ').capitalize()} (*{spec.file})",
        nullable=spec.optional,
        value=None,
        **words,
    )
    field.line_edit.native.setPlaceholderText("auto")
    narrow_file(field)
    return field


def _typed(field: Field) -> Any:
    """Value of a field, of a file its path as text."""
    if not isinstance(field, FileEdit):
        return field.value
    return field.line_edit.value.strip() or "auto"


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
    return str(value) if spec.file else value if isinstance(value, str) else f"{value!r}"
