"""Networks on disk: safetensors for the weights, JSON for what they are; no pickle."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import nn

from ..errors import WeightsError, WriteError

_FORMAT = 1
_BINARY = getattr(os, "O_BINARY", 0)


def save_networks(
    folder: Path, networks: Mapping[str, nn.Module], header: Mapping[str, Any]
) -> None:
    """Write ``NAME.safetensors`` for every network, then ``networks.json``.

    Each file appears whole or not at all; the header goes last, so that a folder
    with a header is complete.

    Raises
    ------
    WriteError
        If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, network in networks.items():
            state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
            replace_file(folder / f"{name}.safetensors", safetensors.torch.save(state))
        text = json.dumps({"format": _FORMAT, **header}, indent=2, sort_keys=True)
        replace_file(folder / "networks.json", text.encode())
    except OSError as error:
        raise WriteError(f"networks cannot be saved in {folder}: {error}") from error


def prepare_folder(folder: Path) -> None:
    """Make the folder, and find out now whether it can be written.

    Raises
    ------
    WriteError
        If it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / ".probe", b"")
        (folder / ".probe").unlink()
    except OSError as error:
        raise WriteError(f"networks cannot be saved in {folder}: {error}") from error


def has_networks(folder: Path) -> bool:
    """Whether the folder holds a complete set of saved networks."""
    return (folder / "networks.json").is_file()


def read_header(folder: Path) -> dict[str, Any]:
    """Header of saved networks.

    Raises
    ------
    WeightsError
        If it is missing, damaged, or of a later format.
    """
    path = folder / "networks.json"
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as a networks header: {error}") from error
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        found = header.get("format") if isinstance(header, dict) else type(header).__name__
        raise WeightsError(f"{path}: expected a networks header of format {_FORMAT}, got {found}")
    return header


def load_network(folder: Path, name: str, network: nn.Module) -> nn.Module:
    """Fill `network` with the weights saved as `name`, strictly.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or its tensors have other names or shapes.
    """
    path = folder / f"{name}.safetensors"
    try:
        state = safetensors.torch.load_file(path)
        network.load_state_dict(state, strict=True)
    except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path}: these weights do not fit this network: {error}") from None
    return network.eval().requires_grad_(False)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all; whatever stood there before still does.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _BINARY, 0o666)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
