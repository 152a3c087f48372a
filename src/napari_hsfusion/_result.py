"""From what a method found to a cube that says where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from . import cube as cubes
from ._estimate import Responses
from ._grid import high_transform
from ._observe import Pair
from ._provenance import input_origin
from ._responses import Floats, psf_note

if TYPE_CHECKING:
    from .engine.events import Finished, Preview
    from .engine.observation import Observation


def all_bands(event: Preview, pair: Pair) -> Preview:
    """Preview whose bands are those of the LR-HSI: NaN in bands that are not used."""
    if pair.bands_x.all():
        return event
    import torch

    used = torch.from_numpy(np.flatnonzero(pair.bands_x)).to(event.basis.device)
    basis = event.basis.new_full((len(event.basis), len(pair.bands_x)), float("nan"))
    basis[:, used] = event.basis
    return replace(event, basis=basis)


def run_record(
    event: Finished,
    pair: Pair,
    responses: Responses,
    preset: str | None,
    origins: Mapping[str, Any],
) -> dict[str, Any]:
    run = dict(event.record)
    record: dict[str, Any] = {
        "method": run.pop("method"),
        "preset": preset,
        "parameters": run.pop("parameters"),
        "seed": run.pop("seed"),
        "scale": pair.ratio,
        "psf": psf_note(responses.psf),
        "srf": responses.srf.matrix.tolist(),
        "srf_source": responses.srf.source,
        "msi_gain": responses.gain.tolist(),
        **origins,
        "notes": list(responses.srf.warnings),
        "value_scale": run.pop("scale"),
        **run,
    }
    record["inputs"] = {
        key: {
            "shape": list(image.shape),
            "dtype": str(image.dtype),
            "name": None if image.name is None else str(image.name),
            "unused_bands": (np.flatnonzero(~used) + 1).tolist(),
            "invalid_pixels": int((~valid).sum()),
            **input_origin(image, values, used, record),
        }
        for key, image, values, used, valid in (
            ("lr_hsi", pair.lr_hsi, pair.x, pair.bands_x, pair.valid_x()),
            ("hr_msi", pair.hr_msi, pair.y, pair.bands_y, pair.valid_y()),
        )
    }
    if responses.record:
        record["estimated"] = dict(responses.record)
    return record


def result_cube(
    fused: npt.NDArray[np.floating],
    record: Mapping[str, Any],
    pair: Pair,
    observation: Observation,
) -> xr.DataArray:
    low, high = pair.lr_hsi, pair.hr_msi
    if pair.bands_x.all():
        values = np.asarray(fused, dtype=np.float32)
    else:
        values = np.empty((low.sizes["band"], *pair.shape_hr), dtype=np.float32)
        values[pair.bands_x] = fused
    for band in np.flatnonzero(~pair.bands_x):
        values[band] = _interpolated(pair.x[band], observation)
    values[:, ~observation.known()] = np.nan
    transform = high.attrs.get("transform")
    if transform is None and "transform" in low.attrs:
        transform = high_transform(low.attrs["transform"], pair.ratio, observation.spatial.phase)
    marked = "good_band" in low.coords or not pair.bands_x.all()
    past = list(low.attrs.get("history", []))
    past += [entry for entry in high.attrs.get("history", []) if entry not in past]
    entry = {
        "step": "fuse",
        "version": record["versions"]["napari-hsfusion"],
        **{key: record[key] for key in ("method", "preset", "seed", "scale", "psf", "srf_source")},
    }
    coordinates = {
        key: low.coords[key].values.tolist()
        for key in ("wavelength", "fwhm", "band_name")
        if key in low.coords
    }
    cube = cubes.make_cube(
        values,
        good_band=pair.bands_x if marked else None,
        crs=high.attrs.get("crs", low.attrs.get("crs")),
        transform=transform,
        nodata=float("nan"),
        history=[*past, entry],
        name="fused",
        **coordinates,
    )
    cube.attrs["record"] = dict(record)
    return cube


def _interpolated(image: npt.NDArray[np.float32], observation: Observation) -> Floats:
    """Cubic interpolation (H, W) of an LR band (h, w); NaN stays NaN and does not spread."""
    import torch

    from .engine.validity import fill_invalid

    spatial = observation.spatial
    known = np.isfinite(image)
    if not known.any():
        return np.full(spatial.shape_hr, np.nan)
    filled = torch.from_numpy(fill_invalid(image[None], known))
    out = spatial.upsample(filled).numpy()[0]
    out[~known.repeat(spatial.ratio, 0).repeat(spatial.ratio, 1)] = np.nan
    return np.asarray(out)
