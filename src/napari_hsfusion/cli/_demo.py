"""``hsfusion demo``: a generated scene, every method, a table, a cube, a picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ParameterError
from ._console import (
    noted_warnings,
    peak_memory,
    print_json,
    reporting,
    say,
    stderr,
    stdout,
    write_json,
)
from ._fuse import run_method
from ._outputs import staged
from ._report import JsonOption, measures_table

if TYPE_CHECKING:
    import xarray as xr

SCENES = ("generated", "indian-pines")
PINES_RESPONSE = "landsat-8:B2,B3,B4,B5,B6,B7"
SHOWN = "args-diff"
METHODS = ("bicubic", "subspace", "args-diff")
"""Quickest first; all that need nothing but the pair."""
FILES = {"cube": f"{SHOWN}.hdr", "record": f"{SHOWN}.json", "figure": "comparison.png"}
CONVENTION = "hsfusion"
SCALE = 4
SNR_DB = 35.0


@reporting
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Output folder.")] = Path(
        "hsfusion-demo"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    scene: Annotated[
        str,
        typer.Option(help="generated, or indian-pines (needs the optional package tensorly)."),
    ] = SCENES[0],
    seed: Annotated[int, typer.Option(min=0, help="Of the noise and of every method.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Simulate a pair of a small scene, fuse it with every method, compare and draw."""
    from .. import api
    from ..engine.device import resolve_device
    from ..figures import comparison_figure, save_png

    resolve_device(device)
    reference, srf, unit = _scene(scene)
    begun = time.perf_counter()
    notes = stderr()
    paths = {key: out / name for key, name in FILES.items()}
    with staged(out, FILES.values()) as stage:
        pair = api.simulate(reference, SCALE, "bicubic", srf, SNR_DB, seed, crop=True)
        rows_used, columns_used = pair.hr_msi.shape[1:]
        reference = reference.isel(y=slice(0, rows_used), x=slice(0, columns_used))
        notes.print(
            f"scene {scene}: {_size(reference)}; observed as {_size(pair.lr_hsi)} and "
            f"{_size(pair.hr_msi)}, bicubic x{SCALE}, {SNR_DB:g} dB",
            markup=False,
        )
        fused: dict[str, xr.DataArray] = {}
        rows: list[dict[str, Any]] = []
        for method in METHODS:
            run = run_method(pair.lr_hsi, pair.hr_msi, method=method, seed=seed, device=device)
            with noted_warnings():
                measured = api.evaluate(reference, run.cube, SCALE, convention=CONVENTION)
            fused[method] = run.cube
            rows.append({"name": method, "seconds": run.seconds, **measured})

        document = {
            "scene": scene,
            "shape": list(reference.shape),
            "observation": pair.record,
            "convention": CONVENTION,
            "rows": rows,
            "record": fused[SHOWN].attrs["record"],
        }
        figure = comparison_figure(
            reference,
            fused,
            captions={row["name"]: f"{row['psnr']:.2f} dB, {row['sam']:.2f}°" for row in rows},
            observed=(("LR-HSI", pair.lr_hsi), ("HR-MSI", pair.hr_msi)),
            title=f"{scene} scene, x{SCALE}, {SNR_DB:g} dB: PSNR and SAM by the {CONVENTION} "
            "convention",
            unit=unit,
        )
        api.save_cube(fused[SHOWN], stage / FILES["cube"])
        write_json(stage / FILES["record"], document)
        save_png(figure, stage / FILES["figure"])
    total = time.perf_counter() - begun
    if as_json:
        print_json(
            {
                **{key: document[key] for key in ("scene", "shape", "convention", "rows")},
                "seconds": total,
                **peak_memory(),
                "files": paths,
            }
        )
        return
    stdout().print(measures_table(rows, CONVENTION))
    for path in paths.values():
        say(str(path))


def _scene(name: str) -> tuple[xr.DataArray, str, str]:
    """Reference, specification of the response, and unit of a scene."""
    from .. import scene

    if name == SCENES[0]:
        bands = zip(*scene.demo_response(), strict=True)
        listed = ",".join(f"{centre:g}/{width:g}" for centre, width in bands)
        return scene.demo_scene(), f"gaussian:{listed}", "reflectance"
    if name == SCENES[1]:
        return scene.indian_pines(), PINES_RESPONSE, "part of the largest count"
    raise ParameterError(f"scene: expected {' or '.join(SCENES)}, got {name!r}")


def _size(cube: xr.DataArray) -> str:
    bands, rows, columns = cube.shape
    return f"{rows} x {columns} pixels, {bands} bands"
