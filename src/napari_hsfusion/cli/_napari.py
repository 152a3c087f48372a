"""``hsfusion napari``: the viewer with files open and the plugin's widgets docked."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from ..errors import HSFusionError, VariableError
from ._console import reporting

WIDGETS = ("simulate", "fuse", "compare", "train", "spectrum")
DEFAULT = ("fuse", "spectrum")

_LAUNCH = "napari_hsfusion._qt.launch"
_INSTALL = (
    "pip install 'napari-hsfusion[pyqt6]' (or 'napari-hsfusion[pyside6]') installs napari with a "
    "Qt binding"
)


@reporting
def napari(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILES]...", help="Cubes to open: ENVI, GeoTIFF, MAT."),
    ] = None,
    widgets: Annotated[
        list[str] | None,
        typer.Option(
            "--widget",
            metavar="NAME",
            help=f"Widget to dock: {', '.join(WIDGETS)}; repeatable. By default "
            f"{' and '.join(DEFAULT)}.",
        ),
    ] = None,
) -> None:
    """Open napari with cubes and the plugin's widgets."""
    from ..io import open_cube

    names = [name.strip().lower() for name in widgets or DEFAULT]
    for name in names:
        if name not in WIDGETS:
            raise HSFusionError(f"--widget: expected {', '.join(WIDGETS)}, got {name!r}")
    paths = [path.expanduser() for path in files or ()]
    for path in paths:
        try:
            open_cube(path)
        except VariableError:
            continue  # the window asks which array it is
    launch = _launcher()
    _check_display()
    launch.run(paths, names)


def _launcher() -> ModuleType:
    """The graphical part's own module, imported by name.

    No import statement leads from the command line to Qt: every other command runs
    where neither Qt nor napari is installed, and import-linter holds it to that. This
    one command is the door, so it asks for the module only when it is called.
    """
    _load_torch()
    try:
        return importlib.import_module(_LAUNCH)
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "napari_hsfusion":
            raise
        raise HSFusionError(f"napari cannot be opened here: {error}. {_INSTALL}") from error


def _load_torch() -> None:
    """Import torch before Qt: on Windows its libraries may not load after Qt's have."""
    try:
        importlib.import_module("torch")
    except (ImportError, OSError) as error:
        raise HSFusionError(
            f"PyTorch cannot be loaded: {error}. Fusion needs it: see https://pytorch.org for "
            "the build that fits this machine"
        ) from error


def _check_display() -> None:
    """Refuse before Qt does: it ends the process where there is no screen."""
    if not sys.platform.startswith("linux"):
        return
    if any(os.environ.get(key) for key in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")):
        return
    raise HSFusionError(
        "napari cannot be opened here: there is no display (neither DISPLAY nor WAYLAND_DISPLAY "
        "is set)"
    )
