"""Python source text: literals that come back exactly, calls, imports, lines."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 100
_INDENT = "    "


def quoted(value: Any) -> str:
    """Literal of a text, in double quotes where that needs no escapes."""
    text = str(value)
    if text.isprintable() and not set(text) & {'"', "\\"}:
        return f'"{text}"'
    return repr(text)


def array_text(values: Sequence[Any]) -> str:
    """Literal of nested lists of numbers, wrapped; every float64 comes back as it was."""
    flat = repr(_floats(values))
    if len(flat) <= 60:
        return flat
    wrapped = textwrap.fill(
        flat, WIDTH - 3 * len(_INDENT), break_long_words=False, break_on_hyphens=False
    )
    return "\n" + textwrap.indent(wrapped, _INDENT) + "\n"


def _floats(values: Any) -> Any:
    return [_floats(v) for v in values] if isinstance(values, list | tuple) else float(values)


class Call:
    """Text of a call: one line if it fits, else one line an argument."""

    def __init__(self, function: str, *positional: str, **named: str) -> None:
        self._function = function
        self._arguments = list(positional)
        self.add(**named)

    def add(self, **named: str) -> None:
        """Append arguments by name; their values are source text."""
        self._arguments += [f"{name}={value}" for name, value in named.items()]

    def __str__(self) -> str:
        line = f"{self._function}({', '.join(self._arguments)})"
        if len(line) + 12 <= WIDTH and "\n" not in line:
            return line
        body = "".join(f"{_INDENT}{_deeper(a)},\n" for a in self._arguments)
        return f"{self._function}(\n{body})"


def _deeper(text: str) -> str:
    return text.replace("\n", f"\n{_INDENT}")


class Source:
    """A script that grows line by line and knows its imports."""

    def __init__(self) -> None:
        self._imports = {"import napari_hsfusion as hs"}
        self._head: list[str] = []
        self._lines: list[str] = []
        self._names: dict[str, str] = {}

    def use(self, statement: str) -> None:
        """Import something at the top."""
        self._imports.add(statement)

    def comment(self, text: str) -> None:
        """Add a comment: above the imports while there is no line yet."""
        wrapped = textwrap.wrap(text, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
        lines = [f"# {line}" for line in wrapped]
        (self._lines if self._lines else self._head).extend(lines)

    def line(self, text: str) -> None:
        """Add a statement."""
        self._lines.append(text)

    def gap(self) -> None:
        """Leave a line blank."""
        self._lines.append("")

    def name(self, name: str, text: str) -> str:
        """Give a long expression a name in a line of its own, once; a short one stays."""
        if "\n" not in text:
            return text
        if text not in self._names:
            taken = name in self._names.values()
            self._names[text] = f"{name}_{len(self._names) + 1}" if taken else name
            self.line(f"{self._names[text]} = {text}")
        return self._names[text]

    def ending(self, results: Mapping[str, str]) -> None:
        """Show the results in napari's console; save them as a program."""
        self.gap()
        self.line('if "viewer" in globals():  # in napari\'s console')
        self._lines += [f"{_INDENT}hs.add_cube(viewer, {name})" for name in results]
        self.line("else:")
        for name, file in results.items():
            self.line(f"{_INDENT}hs.save_cube({name}, {json.dumps(file)})")

    def text(self) -> str:
        """The whole script, the imports sorted as linters want them."""
        ours = {i for i in self._imports if "napari_hsfusion" in i}
        own = {i for i in self._imports if i.split()[1] in ("json", "pathlib")}
        blocks = []
        for group in (own, self._imports - ours - own, ours):
            if group:
                blocks.append("\n".join(sorted(group, key=lambda i: (i.startswith("from"), i))))
        body = "\n".join(self._lines).strip("\n")
        while "\n\n\n" in body:
            body = body.replace("\n\n\n", "\n\n")
        return "\n".join(self._head) + "\n" + "\n\n".join([*blocks, body]) + "\n"
