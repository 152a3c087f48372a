"""Weights of an EMR-Diff model on disk, and whether they fit a pair."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from napari_hsfusion.engine.emr.batch import Batch
from napari_hsfusion.engine.emr.config import EmrConfig
from napari_hsfusion.engine.emr.model import EmrModel
from napari_hsfusion.engine.emr.weights import (
    check_fit,
    load_weights,
    read_weights_header,
    save_weights,
)
from napari_hsfusion.errors import CubeError, WeightsError, WriteError

CONFIG = EmrConfig(bands=6, msi_bands=2, ratio=4, width=4, architecture="unet", steps=3)
NM = [400.0, 440.0, 480.0, 520.0, 560.0, 600.0]
SRF = [[0.5, 0.3, 0.2, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.2, 0.3, 0.5]]
HEADER: dict[str, Any] = {"wavelengths": NM, "srf": SRF, "srf_source": "camera", "seed": 3}


def model() -> EmrModel:
    made = EmrModel(CONFIG)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return made


def test_weights_come_back(tmp_path: Path) -> None:
    """Every bit of the weights, the design, and the header; ready to restore."""
    path = tmp_path / "w.safetensors"
    first = model()
    save_weights(path, first, HEADER)
    again, header = load_weights(path)
    assert again.config == CONFIG
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    assert {k: header[k] for k in HEADER} == HEADER
    assert (header["bands"], header["msi_bands"], header["ratio"]) == (6, 2, 4)
    assert read_weights_header(path) == header
    up, msi = torch.rand(1, 6, 16, 16), torch.rand(1, 2, 16, 16)
    inputs = up, msi, torch.rand(1, 1, 16, 16)
    for one, two in zip(
        first.restore(*inputs, torch.Generator().manual_seed(0)),
        again.restore(*inputs, torch.Generator().manual_seed(0)),
        strict=True,
    ):
        assert torch.equal(one, two)
        assert bool(torch.isfinite(one).all())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_others_may_read_them(tmp_path: Path) -> None:
    """A file of weights gets the usual mode: it goes into packages."""
    (tmp_path / "plain").touch()
    save_weights(tmp_path / "w.safetensors", model(), HEADER)
    modes = [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("plain", "w.safetensors")]
    assert modes[0] == modes[1]


def test_what_is_not_saved(tmp_path: Path) -> None:
    """Weights or headers that are not finite, and folders that are none."""
    path = tmp_path / "w.safetensors"
    save_weights(path, model(), HEADER)
    before = path.read_bytes()
    broken = model()
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(WeightsError, match="not finite"):
        save_weights(path, broken, HEADER)
    with pytest.raises(WeightsError, match="JSON-able"):
        save_weights(path, model(), {"metric": float("nan")})
    with pytest.raises(WeightsError, match="JSON-able"):
        save_weights(path, model(), {"path": tmp_path})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(WriteError, match="cannot be saved"):
        save_weights(path / "w.safetensors", model(), HEADER)


def test_damaged_files(tmp_path: Path) -> None:
    """Truncated at any place, of another kind or method, of another design: each refused."""
    path = tmp_path / "w.safetensors"
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load_weights(path)
    save_weights(path, model(), HEADER)
    whole = path.read_bytes()
    for size in (0, 7, 60, len(whole) // 3, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError, match=r"w\.safetensors: cannot be read as weights"):
            load_weights(path)
    path.write_bytes(b"PK" + whole)
    with pytest.raises(WeightsError, match=r"w\.safetensors"):
        load_weights(path)

    state = {k: v.clone() for k, v in model().state_dict().items()}

    def written(header: Any, tensors: dict[str, torch.Tensor] = state) -> Path:
        meta = None if header is None else {"hsfusion": json.dumps(header)}
        safetensors.torch.save_file(tensors, path, meta)
        return path

    good = {"kind": "weights 1", "method": "emr-diff", "config": CONFIG.to_record()}
    assert load_weights(written(good))[1] == good
    for header, words in (
        (None, "expected weights 1 of this package, got no header"),
        ({**good, "kind": "weights 2"}, "got weights 2"),
        ({**good, "method": "other"}, "expected weights of emr-diff, got other"),
        ({**good, "config": None}, "its header has no config"),
        ({**good, "config": {"bands": 6}}, "design of an EMR-Diff model"),
        ({**good, "config": {**CONFIG.to_record(), "width": 5}}, "not the weights of its design"),
        ({**good, "bands": 7}, "its header has bands = 7, and a design for 6"),
        ({**good, "ratio": 8}, "its header has ratio = 8, and a design for 4"),
    ):
        with pytest.raises(WeightsError, match=words):
            load_weights(written(header))
    some = dict(list(state.items())[1:])
    with pytest.raises(WeightsError, match="not the weights of its design"):
        load_weights(written(good, some))


def test_what_weights_fit() -> None:
    """Bands, ratio, wavelengths and sensor; each refusal says what was expected and came."""
    header = {**HEADER, "bands": 6, "msi_bands": 2, "ratio": 4}
    check_fit(header, 6, NM, 4, 2, SRF)
    check_fit(header, 6, None, 4, 2)
    check_fit({**header, "wavelengths": None}, 6, np.arange(1, 7), 4, 2)
    check_fit(header, 6, np.array(NM) + 15.0, 4, 2)
    check_fit(header, 6, NM, 4, 2, 3.0 * np.array(SRF))
    for arguments, words in (
        ((7, None, 4, 2), "expect 6 hyperspectral bands, got 7"),
        ((6, NM, 8, 2), "expect 4 as ratio of the resolutions, got 8"),
        ((6, NM, 4, 3), "expect 2 multispectral bands, got 3"),
        ((6, np.array(NM) + 30.0, 4, 2), "from 400 to 600 nm, got 430 to 630 nm"),
        ((6, NM, 4, 2, SRF[::-1]), r"another multispectral sensor \(camera\).*got 2.00"),
    ):
        with pytest.raises(WeightsError, match=words):
            check_fit(header, *arguments)


def test_headers_that_do_not_hold_together() -> None:
    """Lists of other lengths, texts and numbers that are none."""
    header = {**HEADER, "bands": 6, "msi_bands": 2, "ratio": 4}
    for change, words in (
        ({"wavelengths": NM[:5]}, "damaged header: wavelengths: expected 6 numbers"),
        ({"wavelengths": "blue"}, "wavelengths: expected 6 numbers"),
        ({"wavelengths": [None, *NM[1:]]}, "wavelengths: expected 6 numbers"),
        ({"srf": [SRF[0]]}, "damaged header: srf: expected 2 x 6 numbers"),
        ({"srf": [SRF[0], SRF[1][:5]]}, "srf: expected 2 x 6 numbers"),
    ):
        with pytest.raises(WeightsError, match=words):
            check_fit({**header, **change}, 6, NM, 4, 2, SRF)


def test_batches_hold_together() -> None:
    """Tensors that do not fit each other are no batch; parts and casts are."""
    shapes = {
        "clean": (2, 6, 8, 12),
        "coarse": (2, 6, 2, 3),
        "up": (2, 6, 8, 12),
        "msi": (2, 3, 8, 12),
        "edges": (2, 1, 8, 12),
    }
    whole = {name: torch.rand(shape) for name, shape in shapes.items()}
    batch = Batch(**whole)
    assert (len(batch), batch.ratio) == (2, 4)
    assert torch.equal(batch.part(1, 2).msi, batch.msi[1:])
    assert batch.to(dtype=torch.float64).edges.dtype == torch.float64
    for name, shape in (
        ("coarse", (2, 6, 4, 3)),
        ("coarse", (2, 5, 2, 3)),
        ("up", (2, 6, 8, 8)),
        ("msi", (1, 3, 8, 12)),
        ("edges", (2, 2, 8, 12)),
        ("clean", (6, 8, 12)),
    ):
        with pytest.raises(CubeError, match="batch"):
            Batch(**{**whole, name: torch.rand(shape)})
