"""Physical values of cubes: what counts as no data."""

from __future__ import annotations

import warnings
from typing import Any

import dask.array
import numpy as np
import pytest

from napari_hsfusion.cube import make_cube, to_physical
from napari_hsfusion.io._source import per_band_physical


@pytest.mark.parametrize("kind", [float, np.float64, np.float32])
@pytest.mark.parametrize("stored", [np.float32, np.float64])
def test_no_data_counts_in_the_stored_floats(stored: Any, kind: Any) -> None:
    number = kind(-9999.9)
    values = np.ones((2, 3, 4), dtype=stored)
    values[1, 2, 3] = number
    out = to_physical(make_cube(values, nodata=number), np.float64)
    np.testing.assert_array_equal(np.argwhere(np.isnan(out)), [[1, 2, 3]])
    lazy = dask.array.from_array(values)
    out = per_band_physical(lazy, np.array([2.0, 3.0]), np.array([0.0, 1.0]), number).compute()
    np.testing.assert_array_equal(np.argwhere(np.isnan(out)), [[1, 2, 3]])


@pytest.mark.parametrize(
    ("dtype", "nodata", "masked"),
    [
        (np.uint8, 255, 1),
        (np.uint8, np.float64(255), 1),
        (np.uint8, -1, 0),
        (np.uint8, np.int16(-1), 0),
        (np.uint8, 511, 0),
        (np.uint8, -9999.9, 0),
        (np.uint8, 254.5, 0),
        (np.uint8, float("nan"), 0),
        (np.uint8, float("inf"), 0),
        (np.int64, 2**63 - 1, 1),
        (np.int64, 2**63 - 2, 0),
        (np.uint64, 2**64 - 1, 1),
        (np.int16, 1e300, 0),
        (np.float32, -1.7e308, 0),
        (np.float32, float("nan"), 0),
    ],
)
def test_no_data_beyond_the_type_is_found_nowhere(dtype: Any, nodata: Any, masked: int) -> None:
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 7.0
    values = np.array([[[0, 1, top]]], dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = to_physical(make_cube(values, nodata=nodata))
    assert int(np.isnan(out).sum()) == masked
