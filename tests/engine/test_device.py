"""Choice of device, and threads that are limited for a block only."""

from __future__ import annotations

import pytest
import torch

from napari_hsfusion.engine.device import (
    describe_device,
    limited_threads,
    resolve_device,
    threads_for,
)
from napari_hsfusion.errors import DeviceError


def test_names_lead_to_devices() -> None:
    """auto is the accelerator if there is one; absent or unknown devices are named."""
    assert resolve_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected
    with pytest.raises(DeviceError, match="'cuda:99' is not there: torch sees"):
        resolve_device("cuda:99")
    with pytest.raises(DeviceError, match="expected auto, cpu, cuda or cuda:N, got 'gpu'"):
        resolve_device("gpu")
    assert describe_device(torch.device("cpu"))["threads"] == torch.get_num_threads()


def test_threads_are_limited_inside_the_block_only() -> None:
    """The setting comes back, after an error too; None changes nothing."""
    before = torch.get_num_threads()
    with limited_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), limited_threads(1):
        _ = 1 / 0
    assert torch.get_num_threads() == before
    with limited_threads(None):
        assert torch.get_num_threads() == before
    assert threads_for(10 * 96 * 96) == 1
    assert threads_for(10 * 1024 * 1024) is None
