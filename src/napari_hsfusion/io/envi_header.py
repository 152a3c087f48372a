"""Text of ENVI headers: fields in, fields out.

ENVI headers are written by many hands: keys in any case, lists over any number
of lines, comments, any encoding. The reader here keeps the text of each value,
so that nothing is lost that another program wrote.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import FormatError

MAGIC = b"ENVI"
EXTRAS_KEY = "hsfusion"
_INTEGER = re.compile(r"[-+]?(0|[1-9]\d*)")
_FLOAT = re.compile(r"[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


def is_envi_header(start: bytes) -> bool:
    """Whether a file that starts like this is an ENVI header."""
    words = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:5]
    return words[:4] == MAGIC and (len(words) == 4 or words[4:].isspace())


def read_header(path: Path) -> dict[str, str]:
    """Fields of an ENVI header.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to str
        Keys in lower case with single spaces; values as written, braces
        included.

    Raises
    ------
    FormatError
        If the file cannot be read, does not begin with the word ENVI, or a
        brace is never closed.
    """
    try:
        raw = path.read_bytes() if is_envi_header(_start(path)) else b""
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}") from error
    if not raw:
        raise FormatError(
            f"{path}: not an ENVI header: expected the word ENVI in its first line, "
            f"found {_start(path)[:20]!r}"
        )
    return parse_header(_decode(raw), path)


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def parse_header(text: str, where: object) -> dict[str, str]:
    """Fields of the text of an ENVI header; see :func:`read_header`."""
    found: dict[str, str] = {}
    lines = iter(text.splitlines()[1:])
    for line in lines:
        key, equals, value = line.partition("=")
        if not equals or line.lstrip().startswith(";"):
            continue
        key = " ".join(key.lower().split())
        value = value.strip()
        if value.startswith("{"):
            parts = [value]
            # what follows the closing brace on its line is a comment
            while "}" not in parts[-1]:
                try:
                    line = next(lines)
                except StopIteration:
                    raise FormatError(f"{where}: the brace after '{key} =' is not closed") from None
                if line.lstrip().startswith(";"):
                    continue
                parts.append(line.strip())
            value = "\n".join(parts).strip()
            value = value[: value.rindex("}") + 1]
        if key:
            found[key] = value
    return found


def inner(value: str) -> str:
    """Text of a value without its braces."""
    value = value.strip()
    if value.startswith("{") and value.endswith("}"):
        value = value[1:-1]
    return value.strip()


def items(value: str) -> list[str]:
    """Elements of a list, split at commas and stripped."""
    text = inner(value)
    if not text:
        return []
    parts = [" ".join(part.split()) for part in text.split(",")]
    return parts[:-1] if len(parts) > 1 and not parts[-1] else parts


def cook(key: str, value: str) -> Any:
    """A field as string, number, or list of these."""
    if key == "description":
        return inner(value)
    if value.startswith("{"):
        return [_scalar(v) for v in items(value)]
    return _scalar(value)


def _scalar(text: str) -> str | int | float:
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def format_value(key: str, value: Any) -> str:
    """Text of a field, the inverse of :func:`cook` where the value allows it."""
    if key == "description":
        return f"{{{value}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return format_list([_text(v) for v in value])
    return _text(value)


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def format_list(values: Sequence[str], per_line: int = 8) -> str:
    """Braced list, broken into lines that every reader can take."""
    rows = [", ".join(values[i : i + per_line]) for i in range(0, len(values), per_line)]
    return "{" + ",\n ".join(rows) + "}"


def survives(key: str, value: Any) -> bool:
    """Whether a field reads back as it is after it was written."""
    if key != " ".join(key.lower().split()) or not key or "=" in key or key.startswith(";"):
        return False
    text = f"ENVI\n{key} = {format_value(key, value)}\nend = 1\n"
    try:
        back = parse_header(text, key)
    except FormatError:
        return False
    same = cook(key, back.get(key, "")) == value and set(back) == {key, "end"}
    # other readers end a list at the first closing brace
    return same and back[key].count("{") <= 1 and back[key].count("}") <= 1


def encode_extras(text: str) -> str:
    """JSON as a value that no reader stumbles over: base64, in short lines."""
    code = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    lines = [code[i : i + 100] for i in range(0, len(code), 100)]
    return "{" + "\n ".join(lines) + "}"


def decode_extras(value: str | None) -> str | None:
    """Inverse of :func:`encode_extras`; None if there is nothing or it is damaged."""
    if value is None:
        return None
    code = "".join(inner(value).split())
    try:
        return base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)).decode()
    except (binascii.Error, ValueError):
        return "damaged"


def compose(fields: Mapping[str, str]) -> str:
    """Text of a header with these fields, in this order."""
    return "\n".join(["ENVI", *(f"{key} = {value}" for key, value in fields.items()), ""])


def integer(fields: Mapping[str, str], key: str, default: int | None, where: object) -> int:
    """A whole number that is not negative.

    Raises
    ------
    FormatError
        If it is missing and has no default, or is not such a number.
    """
    text = fields.get(key)
    if text is None or not text.strip():
        if default is None:
            raise FormatError(f"{where}: the ENVI header lacks '{key}'")
        return default
    try:
        value = int(inner(text))
    except ValueError:
        value = -1
    if value < 0:
        raise FormatError(f"{where}: '{key}': expected a whole number, got {text!r}")
    return value
