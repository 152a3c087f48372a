"""Runs in less memory: what is there, which rung is taken, and that the result stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_pairs import CPU, observation

from napari_hsfusion.engine import memory
from napari_hsfusion.engine.events import Event, Finished, Notice, Started
from napari_hsfusion.engine.memory import Descent, Economy, Rung, TooLarge, ladder, ran_out
from napari_hsfusion.engine.methods import get_method
from napari_hsfusion.engine.nets.build import spatial_network
from napari_hsfusion.engine.nets.initialise import initialise
from napari_hsfusion.engine.nets.recompute import recomputed
from napari_hsfusion.engine.nets.unet import ResidualBlock
from napari_hsfusion.errors import DeviceError
from napari_hsfusion.params import ArgsDiffParams, EmrDiffParams

SMALL: dict[str, Any] = {
    **{"d": 3, "spatial_base": 8, "spatial_levels": 2, "spatial_blocks": 1, "spatial_patch": 8},
    **{"spatial_steps": 3, "spatial_batch": 4, "spatial_stride": 4, "T": 2, "spectral_steps": 2},
}


def events(params: Any, method: str = "args-diff", **more: Any) -> list[Event]:
    _, pair = observation()
    run = get_method(method).run(pair, params, dtype=torch.float64, **more)
    return list(run)


def cube(found: list[Event]) -> np.ndarray:
    assert isinstance(found[-1], Finished)
    return found[-1].cube


def fallback(found: list[Event]) -> dict[str, Any]:
    assert isinstance(found[-1], Finished)
    return dict(found[-1].record["fallback"])


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float | None]]:
    """Bytes that are said to be free, by kind of device."""
    said: dict[str, float | None] = {"cpu": None}
    monkeypatch.setattr(memory, "free_bytes", lambda device: said[device.type])
    monkeypatch.setattr(memory, "_swap", lambda: 0.0)
    return said


def test_a_batch_in_parts_where_the_whole_does_not_fit(free: dict[str, float | None]) -> None:
    params = ArgsDiffParams(**SMALL)
    plain = events(params)
    assert "fallback" not in plain[-1].record
    assert not any(isinstance(event, Notice) for event in plain)
    whole = plain[0].estimate["bytes"]
    free["cpu"] = whole * 1.2 * 0.99
    found = events(params)
    first, second = found[:2]
    assert isinstance(first, Started)
    assert isinstance(second, Notice)
    assert first.estimate["bytes"] < whole
    done = fallback(found)
    assert done["because"] == "estimate"
    assert done["training_parts"] == 2
    assert done["needed_bytes"] == int(whole)
    assert done["free_bytes"] == int(free["cpu"])
    assert "2 parts" in second.text
    np.testing.assert_allclose(cube(found), cube(plain), rtol=0, atol=1e-9)
