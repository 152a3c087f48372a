"""Shared fixtures: real data where it is present, tiny deterministic scenes everywhere."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Before anything loads OpenBLAS or an OpenMP runtime, for they read these once. The problems
# here are small: threads that spin while they wait for one another cost many times what they
# save where the machine has anything else to do. Subprocesses inherit both.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import xarray as xr
from program import load_program

from napari_hsfusion.cube import make_cube

ROOT = Path(__file__).resolve().parents[1]

# pyproject.toml keeps pytest from loading this one itself, before the lines above
pytest_plugins = ["napari.utils._testsupport"] if find_spec("napari") else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where there is no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if torch.cuda.is_available():
        return
    for item in marked:
        item.add_marker(pytest.mark.skip(reason="needs a CUDA device, none is available"))


def data_root() -> Path:
    """Folder of the real data: ``HSFUSION_DATA``, else ``../shared/data``."""
    named = os.environ.get("HSFUSION_DATA")
    return Path(named) if named else ROOT.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def _every_run_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run finds the networks of another, but where `networks_kept` is asked for."""
    from napari_hsfusion.engine.network_cache import CACHE

    CACHE.clear()
    monkeypatch.setattr(CACHE, "_most", 0)


@pytest.fixture
def networks_kept(_every_run_trains: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that a run trained are there for the next one, as they are for a user."""
    from napari_hsfusion.engine.network_cache import CACHE, MOST

    monkeypatch.setattr(CACHE, "_most", MOST)


@pytest.fixture
def failing_trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many of the next trainings of a network fail to allocate: at first one."""
    from napari_hsfusion.engine import selflearning

    train, left = selflearning.train_noise_predictor, [1]

    def full(*arguments: Any, **more: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise MemoryError("Unable to allocate 4. GiB")
        return train(*arguments, **more)

    monkeypatch.setattr(selflearning, "train_noise_predictor", full)
    return left


@pytest.fixture(scope="module", autouse=True)
def what_is_imported_is_no_garbage() -> None:
    """The collector passes over what there was before these tests: modules, above all.

    It runs with every fusion, each time through a million objects. What a test makes is
    collected as ever.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Function from a path relative to the data folder to the path on disk.

    It skips the test, naming the file, where the file is absent.
    """

    def find(relative: str) -> Path:
        path = data_root() / relative
        if not path.exists():
            pytest.skip(f"real data file is absent: {path} (set HSFUSION_DATA to the data folder)")
        return path

    return find


@pytest.fixture(scope="session")
def bench_pair(shared_data: Callable[[str], Path]) -> Callable[[str], dict[str, Any]]:
    """Function from a scene's name to the pair that the benchmark's own program makes of it.

    Its keys are Z, X, Y, R and wavelengths, and response: R before it was rounded. The
    arrays are read-only, for the tests share them.
    """

    @functools.cache
    def make(name: str) -> dict[str, Any]:
        shared_data("scenes")
        program = load_program(shared_data("../bench/pairs.py"))
        file, rows, columns, limits, response = program.SCENES[name]
        made: dict[str, Any] = program.remote_sensing_pair(file, rows, columns, limits, response)
        made["response"] = response(made["wavelengths"])
        for value in made.values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
        return made

    return make


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that is the same in every test."""
    return np.random.default_rng(20250611)


@pytest.fixture
def tiny_scene() -> xr.DataArray:
    """Cube of shape (12, 24, 32), float64 in [0, 1], 430 to 980 nm.

    Four materials with smooth spectra, mixed by smooth maps with fine texture;
    a little band-correlated structure keeps it off exact rank 4.
    """
    bands, rows, cols = 12, 24, 32
    random = np.random.default_rng(7)
    wavelength = np.linspace(430.0, 980.0, bands)
    u = (wavelength - 430.0) / 550.0
    y, x = np.mgrid[0:rows, 0:cols] / 32.0
    spectra = np.stack(
        [
            0.08 + 0.45 / (1 + np.exp(-(wavelength - 710.0) / 18.0)),
            0.15 + 0.35 * u,
            0.45 - 0.1 * u + 0.05 * np.sin(6 * u),
            0.10 * np.exp(-2.0 * u) + 0.02,
        ]
    )
    maps = np.stack(
        [
            1.2 + np.sin(7 * x + 3 * y),
            1.1 + np.cos(9 * y - 2 * x),
            1.0 + np.sign(np.sin(11 * x)) * np.sign(np.cos(8 * y)),
            1.0 + np.sin(5 * (x - y)),
        ]
    )
    maps = maps * (1.0 + 0.2 * random.standard_normal(maps.shape)).clip(0.2)
    maps /= maps.sum(0)
    shade = 0.85 + 0.15 * np.sin(4 * x + 5 * y)
    bend = 0.01 * np.einsum("b,yx->byx", np.sin(9 * u), random.standard_normal((rows, cols)))
    data = np.einsum("dyx,db->byx", maps, spectra) * shade + bend
    return make_cube(
        data.clip(0.0, 1.0),
        wavelength=wavelength,
        fwhm=np.full(bands, 50.0),
        crs="EPSG:32632",
        transform=(2.0, 0.0, 500000.0, 0.0, -2.0, 5400000.0),
        name="tiny",
    )


@pytest.fixture
def srf3(tiny_scene: xr.DataArray) -> np.ndarray:
    """Blue, green and red responses on `tiny_scene`: (3, 12), rows sum to one."""
    wavelength = np.asarray(tiny_scene.coords["wavelength"].values)
    centres = np.array([480.0, 560.0, 660.0])
    sigma = np.array([80.0, 70.0, 80.0]) / 2.3548
    response = np.exp(-0.5 * ((wavelength[None] - centres[:, None]) / sigma[:, None]) ** 2)
    return np.asarray(response / response.sum(1, keepdims=True))
