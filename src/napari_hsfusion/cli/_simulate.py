"""``hsfusion simulate``: the pair that two sensors would see of a reference cube."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._console import print_json, reporting, say, stderr, write_json
from ._outputs import check_no_input, staged
from ._report import JsonOption

FILES = {
    "lr_hsi": "lr_hsi.hdr",
    "hr_msi": "hr_msi.tif",
    "srf": "srf.csv",
    "observation": "observation.json",
}
"""What `simulate` writes into its folder."""


@reporting
def simulate(
    reference: Annotated[Path, typer.Argument(metavar="REF", help="Reference cube.")],
    srf: Annotated[
        str,
        typer.Option(
            help="Spectral response: a sensor's name (see 'hsfusion info') or a CSV file with "
            "a column wavelength_nm and one column a band."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Output folder.")],
    scale: Annotated[int, typer.Option(min=1, help="Ratio of the resolutions.")] = 4,
    psf: Annotated[
        str,
        typer.Option(help="bicubic, gaussian:SIGMA, gauss3-bicubic, box, or a kernel's file."),
    ] = "bicubic",
    snr: Annotated[
        float | None, typer.Option(help="Signal-to-noise ratio of both images, dB.")
    ] = 35.0,
    no_noise: Annotated[bool, typer.Option("--no-noise", help="Add no noise at all.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
    crop: Annotated[
        bool,
        typer.Option("--crop", help="Crop at the bottom and right to a multiple of the scale."),
    ] = False,
    variable: Annotated[
        str | None, typer.Option(help="Variable of a MAT file that holds the reference.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate a pair: DIR/lr_hsi.hdr, hr_msi.tif, srf.csv and observation.json."""
    from .. import api
    from ..sensors.srf import save_response_csv

    cube = api.open_cube(reference, variable=variable)
    paths = {key: out / name for key, name in FILES.items()}
    check_no_input(paths.values(), cubes=[reference], others=(srf, psf))
    with staged(out, FILES.values()) as stage:
        pair = api.simulate(
            cube,
            scale=scale,
            psf=psf,
            srf=srf,
            snr_db=None if no_noise else snr,
            seed=seed,
            crop=crop,
        )
        api.save_cube(pair.lr_hsi, stage / FILES["lr_hsi"])
        api.save_cube(pair.hr_msi, stage / FILES["hr_msi"])
        save_response_csv(pair.response, stage / FILES["srf"])
        write_json(stage / FILES["observation"], pair.record)
    if as_json:
        print_json(
            {
                "files": paths,
                "lr_hsi": {"shape": pair.lr_hsi.shape},
                "hr_msi": {"shape": pair.hr_msi.shape},
                "observation": pair.record,
            }
        )
        return
    for note in pair.record.get("notes", ()):
        stderr().print(f"note: {note}", markup=False)
    for name, cube in (("lr_hsi", pair.lr_hsi), ("hr_msi", pair.hr_msi)):
        bands, rows, columns = cube.shape
        say(f"{paths[name]}: {bands} bands, {rows} x {columns} pixels")
    say(f"{paths['srf']}\n{paths['observation']}")
