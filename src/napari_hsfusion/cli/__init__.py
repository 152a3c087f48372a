"""The command line: every action of the graphical front end has its twin here.

Heavy libraries are imported inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from ._assess import assess
from ._demo import demo
from ._fuse import fuse
from ._napari import napari
from ._report import evaluate, info, methods
from ._reproduce import reproduce
from ._script import script
from ._simulate import simulate
from ._train import train

__all__ = ["app", "main"]

app = typer.Typer(
    name="hsfusion",
    help="Fuse a low-resolution hyperspectral image with a high-resolution multispectral one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"hsfusion {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_version),
    ] = False,
) -> None:
    """Fuse a low-resolution hyperspectral image with a high-resolution multispectral one."""


_COMMANDS = (
    info,
    demo,
    simulate,
    fuse,
    train,
    reproduce,
    evaluate,
    assess,
    methods,
    script,
    napari,
)
for _command in _COMMANDS:
    app.command()(_command)


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="hsfusion")
