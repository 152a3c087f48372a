"""Sample scenes as napari layers: made here, carried by a package, or downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import api, cube, scene
from ._layers import LayerData, band_layer, composite_layer, cube_layers, placement
from .errors import HSFusionError

DEMO_RATIO = 4
DEMO_SNR_DB = 35.0

_CONNECT_SECONDS, _SILENCE_SECONDS = 5.0, 20.0


@dataclass(frozen=True)
class Download:
    """A file on the web that counts only if its checksum is the known one.

    Attributes
    ----------
    title : str
    name : str
        Of the file in the user's cache.
    urls : tuple of str
        Tried in this order.
    known_hash : str
        ``algorithm:hexadecimal``.
    """

    title: str
    name: str
    urls: tuple[str, ...]
    known_hash: str


PAVIA = Download(
    title="Pavia University",
    name="PaviaU.mat",
    urls=(
        "https://www.ehu.eus/ccwintco/uploads/e/ee/PaviaU.mat",
        "https://raw.githubusercontent.com/gokriznastic/HybridSN/master/data/PaviaU.mat",
    ),
    known_hash="md5:165a3c7488995f54a19add47c7eed4cd",
)


def demo_pair() -> list[LayerData]:
    """Demonstration scene, and the pair that two cameras see of it, over one another.

    The pair is that of ``hsfusion demo``: ratio 4, bicubic, 35 dB, seed 0.
    """
    reference = scene.demo_scene()
    bands = zip(*scene.demo_response(), strict=True)
    camera = "gaussian:" + ",".join(f"{centre:g}/{width:g}" for centre, width in bands)
    pair = api.simulate(reference, DEMO_RATIO, "bicubic", camera, DEMO_SNR_DB, seed=0, crop=True)
    origin = placement(reference).origin
    layers = [
        band_layer(reference, "demo reference"),
        composite_layer(pair.hr_msi, "demo HR-MSI", placement(pair.hr_msi, origin)),
        band_layer(pair.lr_hsi, "demo LR-HSI", placement(pair.lr_hsi, origin)),
    ]
    layers[0][1]["visible"] = False
    return layers


def indian_pines() -> list[LayerData]:
    """AVIRIS Indian Pines, which the optional package tensorly carries.

    Raises
    ------
    HSFusionError
        If tensorly is not installed.
    """
    return cube_layers(scene.indian_pines())


def pavia_university() -> list[LayerData]:
    """ROSIS Pavia University, downloaded once into the user's cache.

    610 by 340 pixels of 1.3 m, 103 bands. Band centres are nominal, evenly spaced from
    430 to 860 nm. The scene is Professor Paolo Gamba's, University of Pavia.

    Raises
    ------
    HSFusionError
        If it is not in the cache and cannot be downloaded, or is not the file known.
    """
    counts = api.open_cube(fetch(PAVIA), "paviaU")
    if counts.sizes["band"] != 103:
        raise HSFusionError(f"Pavia University: expected 103 bands, got {counts.sizes['band']}")
    named = cube.make_cube(
        counts.data,
        wavelength=np.linspace(430.0, 860.0, 103),
        metadata={
            "description": "ROSIS-03 Pavia University, courtesy of P. Gamba, University of Pavia",
            "wavelengths": "nominal",
            "pixel size in m": 1.3,
        },
        name="pavia-university",
    )
    named.encoding |= counts.encoding
    return cube_layers(cube.with_history(named, step="pavia_university"))


def fetch(file: Download) -> Path:
    """Path of a downloaded file in the user's cache; it is fetched if it is not there.

    Raises
    ------
    HSFusionError
        Saying what was tried and what to do, if no address gives the file within
        seconds, or it is another one than the checksum says.
    """
    try:
        import pooch
        from requests import RequestException
    except ImportError as error:
        raise HSFusionError(
            f"{file.title}: downloads need the package pooch: run `pip install pooch`"
        ) from error
    folder = Path(pooch.os_cache("napari-hsfusion"))
    downloader = pooch.HTTPDownloader(timeout=(_CONNECT_SECONDS, _SILENCE_SECONDS))
    failures = []
    for url in file.urls:
        try:
            found = pooch.retrieve(
                url, file.known_hash, fname=file.name, path=folder, downloader=downloader
            )
        except (RequestException, OSError) as error:
            failures.append(f"{url}: no answer, or none of use ({type(error).__name__})")
        except ValueError:
            failures.append(f"{url}: another file than the one known, it was thrown away")
        else:
            return Path(found)
    tried = "; ".join(failures)
    raise HSFusionError(
        f"{file.title} could not be downloaded ({tried}). Check the network connection and try "
        f"again, or put the file there yourself: {folder / file.name} ({file.known_hash})"
    )
