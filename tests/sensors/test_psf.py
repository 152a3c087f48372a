"""Point spread functions: every way to state one, and every way to get one wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy.io import savemat

from napari_hsfusion.errors import ResponseError, WriteError
from napari_hsfusion.sensors.psf import BORDERS, PSF, parse_psf, save_kernel


def test_named_kinds() -> None:
    assert parse_psf("Bicubic").kind == "bicubic"
    assert parse_psf("gauss3-bicubic").kind == "gauss3-bicubic"
    assert parse_psf("BOX").kind == "box"
    made = parse_psf("gaussian:1.7")
    assert (made.kind, made.sigma, made.kernel) == ("gaussian", 1.7, None)
    assert parse_psf(made, phase=1.0, border="wrap") == PSF(
        "gaussian", 1.7, None, "gaussian:1.7", 1.0, "wrap"
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gaussian", "gaussian:SIGMA"),
        ("gaussian:x", "gaussian:SIGMA"),
        ("gaussian:0", "above 0"),
        ("gaussian:-1", "above 0"),
        ("gaussian:inf", "above 0"),
        ("lanczos", "expected bicubic, gaussian:SIGMA.*a kernel file"),
        ("", "unknown psf"),
        ("absent.npy", "no such kernel file"),
        (np.ones(5), r"2-D kernel, got shape \(5,\)"),
        (np.zeros((3, 3)), "positive sum"),
        (np.full((3, 3), np.nan), "finite"),
        (np.array([[1.0, -0.5], [0.0, 1.0]]), "no value below"),
        (object(), "expected bicubic"),
    ],
)
def test_bad_specifications(spec: object, message: str) -> None:
    with pytest.raises(ResponseError, match=message):
        parse_psf(spec)  # type: ignore[arg-type]


def test_bad_phase_border_and_size() -> None:
    with pytest.raises(ResponseError, match="finite"):
        parse_psf("box", phase=float("nan"))
    with pytest.raises(ResponseError, match=r"expected one of symmetric.*'mirror'"):
        parse_psf("box", border="mirror")  # type: ignore[arg-type]
    with pytest.raises(ResponseError, match=r"no larger than the image \(4, 9\), got \(5, 3\)"):
        parse_psf(np.ones((5, 3)), image_shape=(4, 9))
    assert parse_psf(np.ones((5, 3)), image_shape=(5, 9)).kernel is not None


def test_borders_are_the_engines() -> None:
    from napari_hsfusion.engine.decimation import BORDERS as OF_ENGINE

    assert tuple(OF_ENGINE) == BORDERS


@pytest.mark.parametrize("name", ["k.npy", "k.csv", "k.txt"])
def test_round_trip_is_bit_for_bit(tmp_path: Path, rng: np.random.Generator, name: str) -> None:
    kernel = parse_psf(rng.uniform(size=(7, 4)) ** 3).kernel
    assert kernel is not None
    assert kernel.sum() == pytest.approx(1, abs=1e-14)
    save_kernel(kernel, tmp_path / name)
    again = parse_psf(tmp_path / name)
    np.testing.assert_array_equal(again.kernel, kernel)
    assert again.source.endswith(name)
    np.testing.assert_array_equal(json.loads(json.dumps(again.record()))["kernel"], kernel)


def test_other_files(tmp_path: Path, rng: np.random.Generator) -> None:
    kernel = rng.uniform(size=(5, 5)).astype(np.float32)
    want = kernel.astype(float) / kernel.astype(float).sum()
    savemat(tmp_path / "k.mat", {"psf": kernel, "x": np.ones((2, 2))})
    savemat(tmp_path / "only.mat", {"h": kernel, "ratio": 4, "bands": np.arange(9.0)})
    np.savez(tmp_path / "k.npz", any_name=kernel)
    tifffile.imwrite(tmp_path / "k.tif", kernel)
    (tmp_path / "k.txt").write_text("1 2\n3 4\n")
    for name in ("k.mat", "only.mat", "k.npz", "k.tif"):
        np.testing.assert_allclose(parse_psf(tmp_path / name).kernel, want, rtol=1e-12)
    np.testing.assert_allclose(parse_psf(tmp_path / "k.txt").kernel, [[0.1, 0.2], [0.3, 0.4]])
    np.savez(tmp_path / "two.npz", a=kernel, b=kernel)
    with pytest.raises(ResponseError, match=r"expected one 2-D array.*a \(5, 5\)"):
        parse_psf(tmp_path / "two.npz")
    (tmp_path / "bad.csv").write_text("1,2\n3\n")
    (tmp_path / "bad.tif").write_bytes(b"not a tiff")
    for name in ("bad.csv", "bad.tif"):
        with pytest.raises(ResponseError, match=name):
            parse_psf(tmp_path / name)


def test_saving_where_it_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ResponseError, match=r"\.npy, \.csv or \.txt, got '\.png'"):
        save_kernel(np.ones((3, 3)), tmp_path / "k.png")
    with pytest.raises(WriteError):
        save_kernel(np.ones((3, 3)), tmp_path / "absent" / "k.npy")
    assert list(tmp_path.iterdir()) == []
