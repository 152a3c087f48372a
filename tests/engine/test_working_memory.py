"""Working memory that is expected, against peaks of a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from napari_hsfusion.engine import working_memory as memory
from napari_hsfusion.engine.cost import args_diff_cost
from napari_hsfusion.engine.memory import Economy
from napari_hsfusion.params import ArgsDiffParams

# several runs in one process: what a first run loads is loaded by small ones before
_PROGRAM = """
import json, pathlib, sys
import torch
from small_pairs import CPU, response
from napari_hsfusion.engine.device import release
from napari_hsfusion.engine.events import Started
from napari_hsfusion.engine.methods import get_method
from napari_hsfusion.engine.observation import Observation
from napari_hsfusion.engine.operators import SpatialDegradation, SpectralResponse

torch.set_num_threads(1)
status, clear = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")

def resident(name):
    return next(int(l.split()[1]) for l in status.read_text().splitlines() if l.startswith(name))

def measured(name, preset, settings, bands, side):
    z = torch.rand(bands, side, side, generator=torch.Generator().manual_seed(0))
    spatial = SpatialDegradation.bicubic((side, side), 4)
    spectral = SpectralResponse(response(bands, 4))
    pair = Observation(spatial.forward(z).numpy(), spectral.forward(z).numpy(), spatial, spectral)
    del z
    method = get_method(name)
    params = method.params.from_settings(settings, base=method.presets[preset])
    release(CPU)
    clear.write_text("5")
    before = resident("VmRSS")
    run = method.run(pair, params)
    expected = next(run).estimate["bytes"]
    for event in run:
        del event
    return expected, 1024 * (resident("VmHWM") - before)

for small in (True, False):
    found = [measured(*case[:-1], 32 if small else case[-1]) for case in json.loads(sys.argv[1])]
print(json.dumps(found))
"""

_NETWORK = {
    **{"spatial_base": 16, "spatial_levels": 2, "spatial_blocks": 1, "spatial_patch": 32},
    **{"spatial_steps": 1, "spectral_steps": 1, "spatial_batch": 2, "T": 1},
}
_CASES = [
    ("bicubic", "default", {}, 100, 256),
    ("subspace", "default", {}, 31, 320),
    ("args-diff", "paper", {**_NETWORK, "gradient": "network"}, 31, 256),
]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone counts peaks")
def test_near_the_peaks_of_a_process() -> None:
    """Within a fifth, apart from the code that a process's first run loads.

    Here the engine alone runs: of both images one copy is made in place of three.
    """
    tests = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps(_CASES)],
        # large arrays as mappings of their own: what the heap keeps of them varies
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000", "PYTHONPATH": tests},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = [0.0, memory.DECOMPOSITIONS, memory.DECOMPOSITIONS + memory.OPTIMISER]
    for case, (said, found), before in zip(_CASES, json.loads(done.stdout), loaded, strict=True):
        bands, side = case[-2:]
        sizes = memory.Sizes(bands, (side // 4, side // 4), 4, (side, side))
        said -= before + memory.LOADED + memory.pair(sizes) * 2 / 3
        assert 0.8 < said / found < 1.2, f"{case}: {said:.3g} for {found:.3g}"


def test_what_takes_memory() -> None:
    shapes = (31, 64, 64), (4, 256, 256)
    base = ArgsDiffParams(spatial_base=16, spatial_batch=16)

    def needed(params: ArgsDiffParams, economy: Economy, train: bool = True) -> float:
        return args_diff_cost(*shapes, params, torch.device("cpu"), train, economy)["bytes"]

    whole = needed(base, Economy())
    assert needed(base, Economy(4)) < whole
    assert needed(base, Economy(), False) < needed(base, Economy(16))
    again = Economy(16, recompute=True)
    assert needed(base, again) < needed(base, Economy(16))
    # what does not go back through the networks has nothing to work out again
    x0 = ArgsDiffParams(spatial_base=16, spatial_batch=16, gradient="x0")
    assert needed(x0, again) == needed(x0, Economy(16))


def test_kept_images_are_those_of_the_network() -> None:
    trained = memory.kept_images(2, 1, frozen=False)
    frozen = memory.kept_images(2, 1, frozen=True)
    again = memory.kept_images(2, 1, frozen=True, again=True)
    assert 10 < again < frozen < trained < 60
    assert memory.kept_images(4, 2, frozen=True) > frozen
