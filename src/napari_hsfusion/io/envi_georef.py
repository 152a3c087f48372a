"""ENVI map information to and from a transform and a coordinate reference system.

GDAL knows the projections, so it does the translating: on a scene of one pixel,
held in memory.
"""

from __future__ import annotations

import logging
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import rasterio
from rasterio.errors import CRSError, RasterioError
from rasterio.io import MemoryFile

from ._gdal import parse_crs, quiet
from .envi_header import compose, items, parse_header

logger = logging.getLogger(__name__)

KEYS = ("map info", "projection info", "coordinate system string")
_ONE_PIXEL = {"samples": "1", "lines": "1", "bands": "1", "header offset": "0"}
_ONE_PIXEL |= {"data type": "2", "interleave": "bsq", "byte order": "0"}


def read_georeference(fields: Mapping[str, str]) -> tuple[list[float] | None, str | None]:
    """Transform and coordinate reference system of a header.

    Parameters
    ----------
    fields : mapping
        As :func:`~napari_hsfusion.io.envi_header.read_header` returns it.

    Returns
    -------
    transform : list of 6 float, or None
        Of pixel corners; None without ``map info``.
    crs : str or None
        As WKT; None where the map is an arbitrary one.
    """
    stated = {key: " ".join(fields[key].split("\n")) for key in KEYS if fields.get(key)}
    if not stated:
        return None, None
    folder = f"hsfusion-{uuid.uuid4().hex}"
    header = compose({**_ONE_PIXEL, **stated}).encode()
    try:
        with (
            quiet(),
            MemoryFile(bytes(16), dirname=folder, filename="map.img") as pixels,
            MemoryFile(header, dirname=folder, filename="map.hdr"),
            pixels.open(driver="ENVI") as source,
        ):
            # adding zero turns GDAL's -0.0 into 0.0
            transform = [float(v) + 0.0 for v in tuple(source.transform)[:6]]
            wkt = source.crs.to_wkt() if source.crs else ""
    except (RasterioError, CRSError) as error:
        logger.warning("map information ignored: %s", error)
        return None, None
    arbitrary = wkt.startswith(("LOCAL_CS", "ENGCRS")) or not wkt
    return (transform if "map info" in stated else None), (None if arbitrary else wkt)


def write_georeference(transform: Sequence[float] | None, crs: str | None) -> dict[str, str]:
    """Header fields that say where a scene lies.

    Parameters
    ----------
    transform : 6 float, or None
    crs : str or None
        Anything that rasterio reads.

    Returns
    -------
    dict of str to str
        Numbers written so that they read back to the last bit, unless the
        transform is rotated or sheared.

    Raises
    ------
    CubeError
        If the coordinate reference system is not understood.
    """
    if transform is None and crs is None:
        return {}
    a, b, c, d, e, f = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0) if transform is None else transform
    system = parse_crs(crs)
    with tempfile.TemporaryDirectory(prefix="hsfusion-") as folder:
        path = Path(folder) / "map.img"
        with (
            quiet(),
            rasterio.open(
                path,
                "w",
                driver="ENVI",
                width=1,
                height=1,
                count=1,
                dtype="uint8",
                crs=system,
                transform=rasterio.Affine(a, b, c, d, e, f),
            ),
        ):
            pass
        written = parse_header(path.with_suffix(".hdr").read_text(), "map information")
    out = {key: written[key] for key in KEYS if key in written}
    if transform is None:
        out.pop("map info", None)
        return out
    if b == 0 and d == 0:
        info = items(out.get("map info", "{Arbitrary, 1, 1, 0, 0, 1, 1, 0, North}"))
        tail = [item for item in info[7:] if not item.startswith("rotation")]
        numbers = [repr(float(v)) for v in (c, f, a, -e)]
        out["map info"] = "{" + ", ".join([info[0], "1", "1", *numbers, *tail]) + "}"
    return out
