"""Reading a band reads that band, and memory stays small."""

from __future__ import annotations

import gc
import gzip
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

import dask
import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
from dask.multiprocessing import initialize_worker_process

from napari_hsfusion.cube import make_cube
from napari_hsfusion.errors import FormatError, TruncatedFileError
from napari_hsfusion.io import open_cube, save_cube
from napari_hsfusion.io._source import RawSource
from napari_hsfusion.io._stream import pieces

BANDS, ROWS, COLUMNS = 250, 4096, 4883  # uint16: 10.0 GB
HEADER = """ENVI
samples = {columns}
lines = {rows}
bands = {bands}
data type = 12
interleave = {interleave}
byte order = 0
"""


def sparse(folder: Path, interleave: str, bands: int = BANDS, rows: int = ROWS) -> Path:
    """ENVI file of gigabytes that takes no room, with a few pixels set in band 100."""
    (folder / "big.hdr").write_text(
        HEADER.format(columns=COLUMNS, rows=rows, bands=bands, interleave=interleave)
    )
    data = folder / "big.img"
    with data.open("wb") as file:
        file.truncate(bands * rows * COLUMNS * 2)
        for y, x, value in ((0, 0, 11), (2048, 7, 22), (rows - 1, COLUMNS - 1, 33)):
            index = {
                "bsq": (100 * rows + y) * COLUMNS + x,
                "bil": (y * bands + 100) * COLUMNS + x,
                "bip": (y * COLUMNS + x) * bands + 100,
            }[interleave]
            file.seek(2 * index)
            file.write(value.to_bytes(2, "little"))
    if data.stat().st_blocks * 512 > 1 << 24:
        pytest.skip("this file system has no sparse files")
    return data


SCRIPT = """
    import os, resource, sys
    import numpy as np
    from napari_hsfusion.io import open_cube
    import dask.array, mmap
    cube = open_cube({path!r})
    np.asarray(cube[0, :2, :2])
    def peak():
        # the highest anonymous and mapped memory so far, in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    before, faults = peak(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    band = cube[100].values
    assert band.shape == ({rows}, {columns}) and band.dtype == np.uint16
    assert (band[0, 0], band[2048, 7], band[-1, -1]) == (11, 22, 33)
    assert int(band.sum()) == 66
    print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux reports it")
@pytest.mark.parametrize(
    ("interleave", "bands", "rows", "limit"),
    [
        ("bsq", BANDS, ROWS, 150e6),
        ("bil", BANDS, ROWS, 250e6),
        # 2.2 GB: one band of these takes reading the whole file
        pytest.param("bip", 104, 2200, 150e6, marks=pytest.mark.slow),
    ],
)
def test_one_band_of_gigabytes(
    tmp_path: Path, interleave: str, bands: int, rows: int, limit: float
) -> None:
    grown = _run(sparse(tmp_path, interleave, bands, rows), rows)
    assert grown < limit  # the band itself is 40 MB, with 2200 rows 21 MB


def _run(path: Path, rows: int) -> int:
    script = SCRIPT.format(path=str(path), rows=rows, columns=COLUMNS)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_bsq_reads_no_other_band(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, ...]] = []
    original = RawSource.__getitem__

    def counted(self: RawSource, key: tuple[slice, slice, slice]) -> np.ndarray:
        values = original(self, key)
        read.append((key[0].start, key[0].stop, values.nbytes))
        return values

    monkeypatch.setattr(RawSource, "__getitem__", counted)
    cube = open_cube(sparse(tmp_path, "bsq"))
    assert read == []
    np.asarray(cube[100])
    assert {r[:2] for r in read} == {(100, 101)}
    assert sum(r[2] for r in read) == ROWS * COLUMNS * 2
    read.clear()
    np.asarray(cube[7, :10, :10])
    assert sum(r[2] for r in read) <= ROWS * COLUMNS * 2


def _rchar() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


def write_pages(path: Path, values: np.ndarray) -> None:
    tifffile.imwrite(path, values, photometric="minisblack", compression="zlib", metadata=None)


def write_mat73(path: Path, values: np.ndarray) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        stored = values.transpose(0, 2, 1)
        file.create_dataset("data", data=stored, chunks=(1, *stored.shape[1:])).attrs[
            "MATLAB_class"
        ] = np.bytes_("uint16")


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs /proc/self/io")
@pytest.mark.parametrize("kind", ["planar", "pages", "mat73"])
def test_compressed_files_read_one_band(
    tmp_path: Path, rng: np.random.Generator, kind: str
) -> None:
    values = rng.integers(0, 65536, (40, 512, 600), dtype=np.uint16)
    path = tmp_path / ("c.mat" if kind == "mat73" else "c.tif")
    writers = {"pages": write_pages, "mat73": write_mat73}
    if kind == "planar":
        save_cube(make_cube(values), path)
    else:
        writers[kind](path, values)
    open_cube(path)  # importing modules reads files too
    before = _rchar()
    cube = open_cube(path)
    assert _rchar() - before < values.nbytes / 20
    before = _rchar()
    np.testing.assert_array_equal(cube[17].values, values[17])
    assert values[17].nbytes * 0.9 < _rchar() - before < 3 * values[17].nbytes
    np.testing.assert_array_equal(cube.values, values)


def test_our_mat5_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(5 * 6 * 7, dtype="i4").reshape(5, 6, 7)
    path = save_cube(make_cube(values), tmp_path / "c.mat")
    cube = open_cube(path)
    monkeypatch.setattr(scipy.io, "loadmat", None)
    np.testing.assert_array_equal(cube.values, values)


def test_compressed_mat5_is_loaded_on_first_access(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.arange(5 * 6 * 7.0).reshape(6, 7, 5)
    scipy.io.savemat(
        tmp_path / "c.mat", {"x": values, "wl": np.arange(5) + 400.0}, do_compression=True
    )
    loaded: list[object] = []
    original = scipy.io.loadmat
    monkeypatch.setattr(
        scipy.io,
        "loadmat",
        lambda *a, **k: (loaded.append(k["variable_names"]), original(*a, **k))[1],
    )
    cube = open_cube(tmp_path / "c.mat")
    assert loaded == [["wl"]]
    np.asarray(cube[0])
    np.asarray(cube[1])
    assert loaded == [["wl"], ["x"]]
    np.testing.assert_array_equal(cube.values, values.transpose(2, 0, 1))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc/self/fd")
@pytest.mark.filterwarnings("error")
def test_nothing_stays_open(tmp_path: Path) -> None:
    values = np.ones((3, 8, 9), "u2")
    for name in ("c.hdr", "c.tif", "c.mat"):
        save_cube(make_cube(values), tmp_path / name)
    write_pages(tmp_path / "pages.tif", values)
    write_mat73(tmp_path / "v73.mat", values)
    (tmp_path / "z.hdr").write_text((tmp_path / "c.hdr").read_text())
    (tmp_path / "z.img.gz").write_bytes(gzip.compress((tmp_path / "c.img").read_bytes()))
    names = ("c.hdr", "c.tif", "c.mat", "pages.tif", "v73.mat", "z.img.gz")
    for name in names:
        np.asarray(open_cube(tmp_path / name))
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        for name in names:
            np.asarray(open_cube(tmp_path / name))
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_gzip_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 9, (3, 800, 900)).astype("u2")
    save_cube(make_cube(values), tmp_path / "c.hdr")
    data = tmp_path / "c.img"
    (tmp_path / "c.img.gz").write_bytes(gzip.compress(data.read_bytes(), 1))
    data.unlink()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    cube = open_cube(tmp_path / "c.hdr")
    np.testing.assert_array_equal(cube[2].values, values[2])
    np.testing.assert_array_equal(cube.values, values)
    del cube
    gc.collect()
    assert not list(scratch.iterdir())


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    """Two fresh interpreters, started as dask starts its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, initialize_worker_process) as pool:
        yield pool


@pytest.mark.parametrize("name", ["c.hdr", "c.tif", "c.mat", "p.tif", "v.mat", "z.hdr"])
def test_cubes_travel_to_other_processes(tmp_path: Path, name: str, processes: Executor) -> None:
    values = np.random.default_rng(0).integers(0, 999, (3, 400, 500)).astype("u2")
    path = tmp_path / name
    if name == "p.tif":
        write_pages(path, values)
    elif name == "v.mat":
        write_mat73(path, values)
    else:
        save_cube(make_cube(values), path)
    if name == "z.hdr":
        plain = tmp_path / "z.img"
        (tmp_path / "z.img.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    cube = open_cube(path)
    sent = pickle.dumps(cube)
    assert len(sent) < 20_000
    np.testing.assert_array_equal(pickle.loads(sent).values, values)
    with dask.config.set(scheduler="processes", pool=processes):
        np.testing.assert_array_equal(cube.values, values)
    read = next(p for p in tmp_path.iterdir() if p.suffix not in (".hdr",))
    read.write_bytes(read.read_bytes() + b"more")
    with pytest.raises(FormatError, match="has changed since it was opened"):
        np.asarray(pickle.loads(sent))


def test_a_file_cut_after_it_was_opened(tmp_path: Path) -> None:
    save_cube(make_cube(np.ones((3, 8, 9), "u2")), tmp_path / "c.hdr")
    cube = open_cube(tmp_path / "c.hdr")
    os.truncate(tmp_path / "c.img", 100)
    with pytest.raises(TruncatedFileError) as caught:
        np.asarray(cube)
    assert (caught.value.expected, caught.value.found) == (3 * 8 * 9 * 2, 100)


@pytest.mark.parametrize("name", ["c.tif", "c.hdr", "c.mat"])
def test_many_threads(tmp_path: Path, name: str) -> None:
    values = np.random.default_rng(0).integers(0, 999, (16, 300, 500)).astype("u2")
    cube = open_cube(save_cube(make_cube(values), tmp_path / name))
    with dask.config.set(scheduler="threads", num_workers=8):
        for _ in range(3):
            np.testing.assert_array_equal(cube.values, values)


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux reports it")
@pytest.mark.parametrize("name", ["c.bip", "c.bil", "c.tif", "c.mat"])
def test_writing_a_large_lazy_cube_takes_little_memory(tmp_path: Path, name: str) -> None:
    script = f"""
        import resource
        import dask, dask.array as da, numpy as np
        from napari_hsfusion.cube import make_cube
        from napari_hsfusion.io import open_cube, save_cube
        import napari_hsfusion.io._stream as stream
        stream.BUDGET = 1 << 24
        dask.config.set(scheduler="synchronous")
        def cube(n):
            return make_cube(da.zeros((n, 500, 500), chunks=(2, 500, 500), dtype="u2"))
        save_cube(cube(2), {str(tmp_path / name)!r})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        save_cube(cube(300), {str(tmp_path / name)!r})
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
    """
    environment = {**os.environ, "GDAL_CACHEMAX": "16"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 75e6  # of 150 MB
    assert open_cube(tmp_path / name).shape == (300, 500, 500)


@pytest.mark.parametrize("along", ["band", "y", "any"])
@pytest.mark.parametrize("chunks", [None, (1, 9, 7), (5, 2, 7), (2, 4, 3), (5, 9, 7)])
def test_pieces_cover_the_cube_once(along: str, chunks: tuple[int, int, int] | None) -> None:
    values = np.arange(5 * 9 * 7).reshape(5, 9, 7)
    cube = make_cube(values)
    if chunks is not None:
        cube = cube.chunk(dict(zip(("band", "y", "x"), chunks, strict=True)))
    for budget in (1, 200, 1000, 10**6):
        seen = np.zeros(values.shape, int)
        for band, row, part in pieces(cube, along, budget):
            np.testing.assert_array_equal(part, values[band, row])
            seen[band, row] += 1
            unit = 7 * 8 * (9 if band.stop - band.start < 5 or along == "band" else 5)
            assert part.nbytes <= max(budget, unit)
        assert (seen == 1).all()
