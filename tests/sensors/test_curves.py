"""Curves as they are drawn: from sensors, Gaussians and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_hsfusion.errors import ResponseError
from napari_hsfusion.sensors.catalogue import sensor_curves
from napari_hsfusion.sensors.curves import response_curves


def test_sensor_and_picked_bands() -> None:
    whole = response_curves("sentinel-2a")
    assert [c.name for c in whole] == [c.name for c in sensor_curves("sentinel-2a")]
    picked = response_curves("sentinel-2a:B4,B3")
    assert [c.name for c in picked] == ["B4", "B3"]
    assert picked[0].wavelength[picked[0].response.argmax()] == pytest.approx(664, abs=15)


def test_gaussians_have_their_centre_and_width() -> None:
    curve = response_curves("gaussian:550/80")[0]
    assert curve.name == "550/80"
    assert curve.wavelength[curve.response.argmax()] == pytest.approx(550)
    above = curve.wavelength[curve.response >= 0.5]
    assert above[-1] - above[0] == pytest.approx(80, abs=4)


def test_files(tmp_path: Path) -> None:
    table = tmp_path / "srf.csv"
    table.write_text("wavelength_nm,red,green\n700,1,0\n600,0.5,0.5\n500,0,1\n")
    curves = response_curves(table)
    assert [c.name for c in curves] == ["red", "green"]
    np.testing.assert_array_equal(curves[0].wavelength, [500, 600, 700])
    np.testing.assert_array_equal(curves[0].response, [0, 0.5, 1])
    assert [c.name for c in response_curves(f"{table}:green")] == ["green"]
    weights = tmp_path / "weights.csv"
    weights.write_text("band,red\n1,0.5\n2,0.5\n")
    assert response_curves(weights) == []


@pytest.mark.parametrize("spec", ["nothing", "gaussian:1", "absent.csv", "sentinel-2a:B77"])
def test_nonsense(spec: str) -> None:
    with pytest.raises(ResponseError):
        response_curves(spec)
