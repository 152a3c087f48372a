"""The record of a reproduction: what it is, and every row that is done; one JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ParameterError, WriteError
from ..io._atomic import atomic_write
from .scores import to_numbers

NAME = "record.json"
KIND = "reproduction 1"


def prepare(folder: Path, *, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """Make the folder, and read the record that is there.

    Parameters
    ----------
    folder : Path
    resume, overwrite : bool
        Go on with the reproduction that is there, or start anew.

    Returns
    -------
    dict or None
        The record to go on from, if any.

    Raises
    ------
    ParameterError
        If there is a record, and neither `resume` nor `overwrite` is set, or both are;
        or if the record to go on from is damaged.
    WriteError
        If the folder cannot be made.
    """
    if resume and overwrite:
        raise ParameterError("give either resume or overwrite, not both")
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder}: cannot be created: {error.strerror or error}") from error
    if not path.exists():
        return None
    if resume:
        return read(path)
    if not overwrite:
        raise ParameterError(
            f"{path}: there already; resume goes on with it, overwrite starts anew, or choose "
            "another folder"
        )
    return None


def read(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises
    ------
    ParameterError
        If it cannot be read as one.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["kind"] != KIND:
            raise ValueError(f"expected a {KIND}, got {document['kind']!r}")
        for row in document["designs"].values():
            to_numbers(row["figures"])
        if not isinstance(document["run"], dict):
            raise ValueError("it does not say what was run")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ParameterError(f"{path}: not the record of a reproduction: {error}") from error
    out: dict[str, Any] = document
    return out


def write(folder: Path, document: Mapping[str, Any]) -> None:
    """Write a record, whole or not at all.

    Raises
    ------
    WriteError
        If it cannot be written.
    """
    text = json.dumps({"kind": KIND, **document}, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / NAME, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises
    ------
    WriteError
        If it cannot be written.
    """
    with atomic_write([path]) as (temporary,):
        temporary.write_text(text, encoding="utf-8")


def check_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Make sure that a record is of the reproduction that is asked for.

    Parameters
    ----------
    path : Path
        Named in the message.
    found, wanted : mapping
        What was run, and what is to be run.

    Raises
    ------
    ParameterError
        Naming the first difference.
    """
    plain = json.loads(json.dumps(wanted))
    for key, value in plain.items():
        if found.get(key) != value:
            raise ParameterError(
                f"{path}: the reproduction to resume has {key} = {_short(found.get(key))}, this "
                f"one {_short(value)}: give the same data and options, or another folder"
            )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}…"
