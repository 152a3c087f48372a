"""``hsfusion fuse``: one pair, one method, one cube; and the run that the demo shares."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FormatError, ParameterError
from ._console import (
    ProgressBars,
    cost,
    duration,
    memory,
    parse_settings,
    peak_memory,
    print_json,
    reporting,
    say,
    stderr,
)
from ._outputs import check_no_input, check_outputs, naming_what_stays
from ._report import JsonOption
from ._simulate import FILES

if TYPE_CHECKING:
    import xarray as xr

OUTPUT_SUFFIXES = (".hdr", ".tif", ".tiff", ".mat")


@dataclass(frozen=True)
class Run:
    """A finished run: the cube, the seconds from its first event to its last, its cost."""

    cube: xr.DataArray
    seconds: float
    estimate: Mapping[str, float]


def run_method(lr_hsi: Any, hr_msi: Any, *, announce: bool = True, **options: Any) -> Run:
    """Drain :func:`napari_hsfusion.api.iter_fuse` with progress bars on stderr.

    Parameters
    ----------
    lr_hsi, hr_msi
        As `iter_fuse` takes them.
    announce : bool
        Print the estimated cost before the run starts.
    **options
        As `iter_fuse` takes them.
    """
    from .. import api
    from ..engine.events import Notice, Started

    events = api.iter_fuse(lr_hsi, hr_msi, **options)
    begun = time.perf_counter()
    estimate: Mapping[str, float] = {}
    with ProgressBars() as bars:
        try:
            while True:
                event = next(events)
                if isinstance(event, Started):
                    estimate = dict(event.estimate)
                    if announce:
                        expected = cost(estimate) or "of unknown cost"
                        bars.say(f"{event.method}: {expected}")
                    begun = time.perf_counter()
                elif isinstance(event, Notice):
                    bars.say(f"note: {event.text}")
                bars.show(event)
        except StopIteration as stop:
            return Run(stop.value, time.perf_counter() - begun, estimate)
        finally:
            events.close()


@reporting
def fuse(
    hsi: Annotated[Path, typer.Argument(metavar="HSI", help="Low-resolution hyperspectral.")],
    msi: Annotated[Path, typer.Argument(metavar="MSI", help="High-resolution multispectral.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="OUT", help="Fused cube: .hdr, .tif or .mat.")
    ],
    method: Annotated[str, typer.Option(help="See 'hsfusion methods'.")] = "args-diff",
    preset: Annotated[
        str | None, typer.Option(help="Preset of the method; its default without one.")
    ] = None,
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
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same cube.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    samples: Annotated[
        int, typer.Option(min=0, help="Samples to draw for --deviation; 0 for none.")
    ] = 0,
    deviation: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Standard deviation of every value of OUT: .hdr, .tif or .mat."
        ),
    ] = None,
    deviation_map: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Its summary: one image, relative to the cube's root mean square."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change one parameter; repeatable."),
    ] = None,
    networks: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of trained networks to reuse.")
    ] = None,
    hsi_variable: Annotated[
        str | None, typer.Option(help="Variable of a MAT file that holds the HSI.")
    ] = None,
    msi_variable: Annotated[
        str | None, typer.Option(help="Variable of a MAT file that holds the MSI.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fuse a pair into a cube with the HSI's bands and the MSI's pixels."""
    from .. import api

    changes = parse_settings(settings or [])
    more = _deviation_files(samples, deviation, deviation_map)
    check_outputs([out, *more.values()], OUTPUT_SUFFIXES)
    lr_hsi = api.open_cube(hsi, variable=hsi_variable)
    hr_msi = api.open_cube(msi, variable=msi_variable)
    check_no_input([out, *more.values()], cubes=(hsi, msi), others=(psf, srf))
    observation = observation_beside(msi, lr_hsi, hr_msi, psf, srf)
    if observation:
        lr_hsi = lr_hsi.assign_attrs(observation=observation)
        hr_msi = hr_msi.assign_attrs(observation=observation)
        for image in (lr_hsi, hr_msi):  # for the run's record
            image.encoding["observation"] = str(msi.with_name(FILES["observation"]).absolute())
    with naming_what_stays(networks):
        run = run_method(
            lr_hsi,
            hr_msi,
            method=method,
            preset=preset,
            scale=scale,
            psf=psf,
            srf=srf,
            seed=seed,
            device=device,
            networks=networks,
            samples=samples,
            params=changes,
        )
        api.save_cube(run.cube, out)
        for taken, path in more.items():
            api.save_cube(getattr(api, taken)(run.cube), path)
    used = peak_memory()
    if as_json:
        print_json(
            {
                "output": out,
                **more,
                "shape": run.cube.shape,
                "seconds": run.seconds,
                **used,
                "estimate": run.estimate,
                "record": run.cube.attrs["record"],
            }
        )
        return
    bands, rows, columns = run.cube.shape
    peaks = ", ".join(
        f"{memory(used[key])} {name}"
        for key, name in (("peak_rss_bytes", "of memory"), ("peak_cuda_bytes", "on the GPU"))
        if key in used
    )
    say(
        f"{out}: {bands} bands, {rows} x {columns} pixels, {method} in "
        f"{duration(run.seconds)}; at most {peaks}"
    )
    for taken, path in more.items():
        said = f"of {samples} samples, {_typical(run.cube):.2%} of the signal on average"
        say(f"{path}: {taken.replace('_', ' ')} {said}")


def _deviation_files(samples: int, cube: Path | None, image: Path | None) -> dict[str, Path]:
    """Files to write beside the cube, by the function of the API that gives what goes in."""
    wanted = {"deviation_cube": cube, "deviation_map": image}
    more = {taken: path for taken, path in wanted.items() if path is not None}
    if bool(more) != bool(samples):
        got = f"--samples {samples} and {'no file' if not more else next(iter(more.values()))}"
        raise ParameterError(
            f"expected --samples N with --deviation FILE or --deviation-map FILE, got {got}"
        )
    return more


def _typical(cube: xr.DataArray) -> float:
    """Root mean square of the map of relative deviations."""
    values = cube.coords["relative_deviation"].astype("float64")
    return float((values**2).mean() ** 0.5)


def observation_beside(
    msi: Path, lr_hsi: xr.DataArray, hr_msi: xr.DataArray, psf: str | None, srf: str | None
) -> dict[str, Any]:
    """Read what `simulate` wrote beside the MSI, where nothing else says the responses."""
    path = msi.with_name(FILES["observation"])
    told = "observation" in lr_hsi.attrs or "observation" in hr_msi.attrs
    if told or (psf is not None and srf is not None) or not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: expected a JSON document, got {error}") from error
    if not isinstance(document, dict):
        raise FormatError(f"{path}: expected a JSON object, got {type(document).__name__}")
    wanted = [
        name for name, given in (("psf", psf), ("srf", srf)) if given is None and name in document
    ]
    if not wanted:
        return {}
    stderr().print(f"note: {' and '.join(wanted)} taken from {path}", markup=False)
    return document
