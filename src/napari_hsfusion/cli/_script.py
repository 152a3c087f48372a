"""``hsfusion script``: the Python lines that repeat the run behind a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._console import check_output_file, reporting, write_text
from ._outputs import check_no_input


@reporting
def script(
    cube: Annotated[
        Path, typer.Argument(metavar="CUBE", help="Fused cube, or image of a simulated pair.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE.py", help="Write here, not on stdout."),
    ] = None,
    variable: Annotated[
        str | None, typer.Option(help="Variable of a MAT file that holds the cube.")
    ] = None,
) -> None:
    """Print the Python lines that repeat exactly the run that made a cube."""
    from .. import api

    if out is not None:
        check_output_file(out, (".py",))
        check_no_input([out], cubes=[cube])
    text = api.as_script(api.open_cube(cube, variable=variable))
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text)
