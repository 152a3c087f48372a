"""``hsfusion assess``: a fused cube against the pair it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._console import noted_warnings, print_json, reporting, stdout
from ._fuse import observation_beside
from ._report import JsonOption, table_of


@reporting
def assess(
    lr_hsi: Annotated[Path, typer.Argument(metavar="LR_HSI", help="Low-resolution hyperspectral.")],
    hr_msi: Annotated[
        Path, typer.Argument(metavar="HR_MSI", help="High-resolution multispectral.")
    ],
    fused: Annotated[Path, typer.Argument(metavar="FUSED", help="Cube to be measured.")],
    scale: Annotated[
        int | None, typer.Option(min=1, help="Ratio of the resolutions, checked against the sizes.")
    ] = None,
    psf: Annotated[
        str | None,
        typer.Option(
            help="bicubic, gaussian:SIGMA, gauss3-bicubic, box, a kernel's file, or estimate."
        ),
    ] = None,
    srf: Annotated[
        str | None, typer.Option(help="A CSV file, a sensor's name, or estimate.")
    ] = None,
    hsi_variable: Annotated[
        str | None, typer.Option(help="Variable of a MAT file that holds the HSI.")
    ] = None,
    msi_variable: Annotated[
        str | None, typer.Option(help="Variable of a MAT file that holds the MSI.")
    ] = None,
    fused_variable: Annotated[
        str | None, typer.Option(help="Variable of a MAT file that holds the fused cube.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a fused cube against the pair it was made of: PSNR, SAM, D_lambda, D_s, HQNR."""
    from .. import api
    from ..metrics import no_reference_infos

    with noted_warnings():
        low = api.open_cube(lr_hsi, variable=hsi_variable)
        high = api.open_cube(hr_msi, variable=msi_variable)
        known = observation_beside(hr_msi, low, high, psf, srf)
        if known:
            low = low.assign_attrs(observation=known)
            high = high.assign_attrs(observation=known)
        cube = api.open_cube(fused, variable=fused_variable)
        measured = api.assess(low, high, cube, scale=scale, psf=psf, srf=srf)
    if as_json:
        print_json({"lr_hsi": lr_hsi, "hr_msi": hr_msi, "fused": fused, **measured})
        return
    rows = [{"name": fused.name, **measured}]
    stdout().print(table_of(rows, no_reference_infos().values(), "without a reference"))
