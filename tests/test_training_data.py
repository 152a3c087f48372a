"""Scenes that networks train on: found or skipped, and crops that equal the degraded whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from small_pairs import response, scene

from napari_hsfusion import api
from napari_hsfusion._training import scenes as scenes_module
from napari_hsfusion._training import trial as trial_module
from napari_hsfusion._training.crops import Crops
from napari_hsfusion._training.scenes import SceneSet, open_scenes
from napari_hsfusion._training.sensors import Sensors
from napari_hsfusion._training.trial import Trial, central
from napari_hsfusion.cube import make_cube
from napari_hsfusion.engine.diffusion.edges import edge_map
from napari_hsfusion.engine.events import CancelToken
from napari_hsfusion.engine.training_state import Progress
from napari_hsfusion.errors import CubeError, FormatError, ParameterError
from napari_hsfusion.io import _source
from napari_hsfusion.sensors.psf import parse_psf

NM = np.linspace(450.0, 650.0, 5)


def cube(height: int = 40, width: int = 48, bands: int = 5, seed: int = 0) -> xr.DataArray:
    """A scene in digital numbers."""
    values = 3000.0 * scene(bands, height, width, seed) + 100.0
    nm = np.linspace(450.0, 650.0, bands)
    return make_cube(values.astype(np.uint16), wavelength=nm, name=f"scene-{seed}")


def opened(data: Any, **options: Any) -> SceneSet:
    run = open_scenes(data, **{"ratio": 4, "patch": 16, **options})
    while True:
        try:
            next(run)
        except StopIteration as stop:
            result: SceneSet = stop.value
            return result


def sensors(psf: Any = "gauss3-bicubic", snr: float | None = None, bands: int = 5) -> Sensors:
    return Sensors(4, parse_psf(psf), response(bands, 2), snr)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three formats, a subfolder, and everything that cannot be trained on."""
    api.save_cube(cube(seed=1), tmp_path / "a.tif")
    api.save_cube(cube(seed=2), tmp_path / "b.hdr", interleave="bip")
    (tmp_path / "deeper").mkdir()
    api.save_cube(cube(44, 50, seed=3), tmp_path / "deeper" / "c.mat")
    api.save_cube(cube(bands=7), tmp_path / "seven.tif")
    api.save_cube(cube(12, 48), tmp_path / "narrow.tif")
    shifted = cube(seed=5)
    api.save_cube(shifted.assign_coords(wavelength=("band", NM + 30)), tmp_path / "shifted.tif")
    api.save_cube(make_cube(np.full((5, 40, 40), 7.0)), tmp_path / "flat.tif")
    api.save_cube(make_cube(np.full((5, 40, 40), np.nan)), tmp_path / "empty.tif")
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "truncated.tif").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.txt").write_text("not a cube")
    (tmp_path / "zero.tif").write_bytes(b"")
    (tmp_path / ".hidden.tif").write_bytes(b"nothing")
    return tmp_path


def test_what_cannot_be_used_is_listed(folder: Path) -> None:
    """Every file is either a scene or skipped with its own reason; hidden ones are neither."""
    found = opened(folder)
    assert [s.name for s in found.scenes] == ["a.tif", "b.hdr", str(Path("deeper", "c.mat"))]
    assert found.scenes[2].shape == (5, 44, 48)
    assert found.bands == 5
    np.testing.assert_allclose(found.wavelength, NM)
    reasons = {s.name: s.reason for s in found.skipped}
    expected = {
        "seven.tif": "expected 5 good bands, got 7",
        "narrow.tif": "at least 16 x 16 pixels",
        "shifted.tif": "bands up to 30.0 nm away",
        "flat.tif": "7 throughout",
        "empty.tif": "no value",
        "truncated.tif": "",
        "notes.txt": "unknown format",
        "zero.tif": "empty",
    }
    assert reasons.keys() == expected.keys()
    for name, words in expected.items():
        assert words in reasons[name], (name, reasons[name])
        assert reasons[name]
        assert str(folder) not in reasons[name]


def test_files_and_cubes_and_single_bands(folder: Path, tmp_path: Path) -> None:
    """Files by name, each once; cubes in memory; pictures of one band are outvoted."""
    found = opened([folder / "b.hdr", folder / "b.img", cube(seed=9), str(folder / "a.tif")])
    assert [s.name for s in found.scenes] == ["b.hdr", "scene-9", "a.tif"]
    pictures = [make_cube(np.random.default_rng(k).random((1, 40, 40))) for k in range(3)]
    found = opened([*pictures, cube()])
    assert len(found.scenes) == 1
    assert len(found.skipped) == 3


def test_sets_that_are_too_small(folder: Path, tmp_path: Path) -> None:
    """Nothing readable, nothing as large as a patch: the error says what was found."""
    (tmp_path / "void").mkdir()
    with pytest.raises(ParameterError, match="found no file"):
        opened(tmp_path / "void")
    with pytest.raises(ParameterError, match=r"64 x 64.*a\.tif: .*got 40 x 48"):
        opened(folder, patch=64)
    with pytest.raises(ParameterError, match=r"notes\.txt: unknown format"):
        opened(folder / "notes.txt", what="validation data")
    with pytest.raises(FormatError, match="no such file or folder"):
        opened(tmp_path / "absent")
    with pytest.raises(ParameterError, match="expected folders, files or cubes, got int"):
        opened(3)


def test_bad_bands_have_no_part() -> None:
    marked = cube(bands=7).assign_coords(good_band=("band", [True] * 3 + [False] * 2 + [True] * 2))
    nm = marked.wavelength.values[[0, 1, 2, 5, 6]]
    other = make_cube(cube().values, wavelength=nm)
    found = opened([marked, other])
    assert [s.shape[0] for s in found.scenes] == [5, 5]
    part = found.scenes[0].window((4, 8), (0, 16))
    np.testing.assert_array_equal(part, marked.values[[0, 1, 2, 5, 6], 4:8, :16])


@pytest.mark.parametrize("name", ["a.tif", "b.hdr"])
def test_a_window_reads_no_more_than_itself(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scenes beyond the memory bound are read window by window, with the same values."""
    kept = opened(folder / name, memory=1e9)
    lazy = opened(folder / name, memory=0.0)
    assert kept.kept_bytes() == 5 * 40 * 48 * 2
    assert lazy.kept_bytes() == 0
    computed: list[Any] = []
    monkeypatch.setattr(
        _source.da.Array, "compute", lambda *a, **k: computed.append(a) or np.zeros(())
    )
    monkeypatch.setattr(_source.da.Array, "__array__", lambda *a, **k: computed.append(a))
    part = lazy.scenes[0].window((8, 24), (4, 44))
    assert computed == []
    np.testing.assert_array_equal(part, kept.scenes[0].window((8, 24), (4, 44)))


def test_memory_is_bounded(folder: Path) -> None:
    """As many scenes are kept as fit; batches do not depend on which."""
    one = 5 * 40 * 48 * 2
    found = opened([folder / "a.tif", folder / "b.hdr"], memory=1.5 * one)
    assert [s.stored is not None for s in found.scenes] == [True, False]
    batches = []
    for memory in (0.0, 1e9):
        crops = Crops(opened(folder, memory=memory), sensors(), patch=16)
        batches.append(crops.draw(6, torch.Generator().manual_seed(3)))
    assert torch.equal(batches[0].coarse, batches[1].coarse)
    assert torch.equal(batches[0].edges, batches[1].edges)


KERNEL = np.outer([1.0, 2.0, 4.0, 2.0, 1.0], [1.0, 5.0, 3.0]) / 90.0


@pytest.mark.parametrize("psf", ["bicubic", "gauss3-bicubic", "gaussian:2.5", "box", KERNEL])
def test_a_crop_is_a_part_of_the_degraded_scene(psf: Any) -> None:
    """Everything of a crop equals that part of the whole scene's pair, borders included."""
    height, width = 64, 72
    found = opened(cube(height, width))
    seen = sensors(psf)
    crops = Crops(found, seen, patch=16, turns=False)
    whole = crops.whole(0)
    operator = crops.operator((height, width))
    clean = torch.from_numpy(found.scenes[0].window((0, height), (0, width)))
    clean = clean / float(clean.max() - clean.min())
    torch.testing.assert_close(whole.clean[0], clean)
    torch.testing.assert_close(whole.coarse[0], operator.forward(clean))
    torch.testing.assert_close(whole.up[0], operator.upsample(operator.forward(clean)))
    msi = torch.tensordot(torch.from_numpy(seen.response).float(), clean, dims=1)
    torch.testing.assert_close(whole.msi[0], msi)
    torch.testing.assert_close(whole.edges, edge_map(msi[None]), rtol=1e-4, atol=1e-5)
    generator = torch.Generator().manual_seed(0)
    places = set()
    for _ in range(60):
        batch = crops.draw(1, generator)
        hits = [
            (y, x)
            for y in range(0, height - 15, 4)
            for x in range(0, width - 15, 4)
            if torch.equal(batch.clean, whole.clean[..., y : y + 16, x : x + 16])
        ]
        assert len(hits) == 1
        y, x = hits[0]
        places.add((y, x))
        for name in ("up", "msi", "edges"):
            part = getattr(whole, name)[..., y : y + 16, x : x + 16]
            torch.testing.assert_close(getattr(batch, name), part, rtol=1e-4, atol=2e-5)
        part = whole.coarse[..., y // 4 : y // 4 + 4, x // 4 : x // 4 + 4]
        torch.testing.assert_close(batch.coarse, part, rtol=1e-4, atol=2e-5)
    assert len(places) > 30
    assert {y for y, _ in places} >= {0, 48}
    assert {x for _, x in places} >= {0, 56}


def test_turned_crops_are_degraded_after_turning() -> None:
    """All eight turns come; a crop's coarse pixels are those of the turned scene."""
    found = opened(cube(48, 48))
    crops = Crops(found, sensors(KERNEL), patch=16, turns=True)
    base = torch.from_numpy(found.scenes[0].window((0, 48), (0, 48))) / found.scenes[0].span
    turned = [t for k in range(4) for t in (base.rot90(k, (1, 2)), base.rot90(k, (1, 2)).flip(2))]
    wholes = [(t, crops.operator((48, 48)).forward(t.contiguous())) for t in turned]
    generator = torch.Generator().manual_seed(2)
    kinds = set()
    for _ in range(40):
        batch = crops.draw(1, generator)
        for kind, (clean, coarse) in enumerate(wholes):
            for y in range(0, 33, 4):
                for x in range(0, 33, 4):
                    if torch.equal(batch.clean[0], clean[:, y : y + 16, x : x + 16]):
                        part = coarse[:, y // 4 : y // 4 + 4, x // 4 : x // 4 + 4]
                        torch.testing.assert_close(batch.coarse[0], part, rtol=1e-4, atol=2e-5)
                        kinds.add(kind)
    assert kinds == set(range(8))


def test_the_closed_form_start() -> None:
    """Kept scenes give parts of the whole scene's estimate; others estimate from the crop."""
    data = cube(64, 64)
    kept = Crops(opened(data), sensors(), patch=32, turns=True, start="subspace")
    assert list(kept.survey(CancelToken())) == [1]
    whole = kept.whole(0)
    plain = Crops(opened(data), sensors(), patch=32, turns=True)
    generator = torch.Generator().manual_seed(1)
    better = 0
    for _ in range(10):
        seed = generator.get_state()
        batch = kept.draw(1, generator)
        generator.set_state(seed)
        other = plain.draw(1, generator)
        assert torch.equal(batch.clean, other.clean)
        error = [(b.up - b.clean).square().mean() for b in (batch, other)]
        better += bool(error[0] < 0.3 * error[1])
    assert better >= 8
    assert (whole.up - whole.clean).square().mean() < 0.3 * (
        (plain.whole(0).up - whole.clean).square().mean()
    )
    lazy = Crops(opened(data, memory=0.0), sensors(), patch=32, start="subspace")
    list(lazy.survey(CancelToken()))
    batch = lazy.draw(1, torch.Generator().manual_seed(1))
    assert (batch.up - batch.clean).square().mean() < 1e-3
    with pytest.raises(ParameterError, match="start"):
        Crops(opened(data), sensors(), patch=32, start="nearest")


def test_noise_has_the_level_that_is_asked_for() -> None:
    """Both images, each against its own mean power; edges stay within [0, 1]."""
    data = cube(64, 64)
    clean = Crops(opened(data), sensors(), patch=64, turns=False)
    noisy = Crops(opened(data), sensors(snr=25.0), patch=64, turns=False)
    generator = torch.Generator().manual_seed(1)
    true, seen = clean.whole(0), [noisy.draw(1, generator) for _ in range(8)]
    for name in ("coarse", "msi"):
        noise = torch.cat([getattr(b, name) - getattr(true, name) for b in seen])
        power = getattr(true, name).square().mean()
        level = 10 * torch.log10(power / noise.square().mean())
        assert float(level) == pytest.approx(25.0, abs=0.3)
    assert torch.equal(noisy.whole(0).msi, noisy.whole(0).msi)
    for batch in seen:
        assert float(batch.edges.min()) >= 0.0
        assert float(batch.edges.max()) <= 1.0
        upsampled = noisy.operator((64, 64)).upsample(batch.coarse[0])
        torch.testing.assert_close(batch.up[0], upsampled, rtol=1e-4, atol=1e-5)


def test_draws_depend_on_the_seed_alone_and_are_shared_out() -> None:
    """Two processes get between them what one gets; the generator moves alike in all."""
    crops = Crops(opened([cube(seed=k) for k in range(3)]), sensors(snr=30.0), patch=16)
    generators = [torch.Generator().manual_seed(6) for _ in range(3)]
    whole = crops.draw(4, generators[0])
    parts = [
        crops.draw(2, generator, rank=rank, world=2)
        for rank, generator in enumerate(generators[1:])
    ]
    for name in ("clean", "coarse", "up", "msi", "edges"):
        both = torch.cat([getattr(p, name) for p in parts])
        assert torch.equal(getattr(whole, name), both)
    assert torch.equal(generators[0].get_state(), generators[1].get_state())
    assert not torch.equal(crops.draw(4, generators[0]).clean, whole.clean)


def test_gaps_are_avoided() -> None:
    """Crops with missing values are drawn anew; a scene full of gaps is an error."""
    values = cube(64, 64).values.astype(np.float64)
    values[:, :40, :40] = np.nan
    crops = Crops(opened(make_cube(values, wavelength=NM)), sensors("box"), patch=16)
    for _ in range(5):
        batch = crops.draw(2, torch.Generator().manual_seed(4))
        assert bool(torch.isfinite(batch.up).all())
        assert bool(torch.isfinite(batch.edges).all())
    values[:, ::9, ::9] = np.nan
    crops = Crops(opened(make_cube(values, wavelength=NM)), sensors("box"), patch=16)
    with pytest.raises(CubeError, match="without missing values"):
        crops.draw(1, torch.Generator().manual_seed(4))


def test_gaps_and_the_closed_form_start() -> None:
    """The start of a scene with a gap is that of the whole scene, away from the gap."""
    values = cube(64, 64).values.astype(np.float64)
    whole = Crops(opened(cube(64, 64)), sensors(), patch=16).whole(0).clean[0].numpy()
    values[:, :3, :5] = np.nan
    crops = Crops(opened(make_cube(values, wavelength=NM)), sensors(), patch=16, start="subspace")
    assert list(crops.survey(CancelToken())) == [1]
    start = crops._starts[0].astype(np.float32)
    assert start.shape == whole.shape
    assert np.isfinite(start).all()
    span = (np.nanmax(values) - np.nanmin(values)) / np.ptp(cube(64, 64).values)
    assert np.abs(start * span - whole)[:, 24:, 24:].max() < 0.1
    up = Crops(opened(cube(64, 64)), sensors(), patch=16).whole(0).up[0].numpy()
    error, plain = (np.square(e - whole)[:, 24:, 24:].mean() for e in (start * span, up))
    assert error < 0.3 * plain
    batch = crops.draw(3, torch.Generator().manual_seed(1))
    assert bool(torch.isfinite(batch.up).all())
    values[:, ::4, ::4] = np.nan
    crops = Crops(opened(make_cube(values, wavelength=NM)), sensors(), patch=16, start="subspace")
    assert list(crops.survey(CancelToken())) == [1]


def test_gaps_leave_the_noise_as_it_was_asked_for() -> None:
    """A gap does not silence a scene: the level is that of the pixels that it leaves."""
    data = cube(64, 64).values.astype(np.float64)
    gap = data.copy()
    gap[:, :4, :4] = np.nan
    gap[:, 50, 50] = np.nan
    for psf in ("box", "gaussian:2.5"):
        seen = sensors(psf, snr=20.0)
        found = [
            Crops(opened(make_cube(v, wavelength=NM)), seen, patch=16)._figures_of(0)
            for v in (data, gap)
        ]
        spans = np.ptp(data), np.nanmax(gap) - np.nanmin(gap)
        levels = [
            (f.sigma_x * span, f.sigma_y * span) for f, span in zip(found, spans, strict=True)
        ]
        np.testing.assert_allclose(levels[1], levels[0], rtol=0.05)
    clean = data / spans[0]
    power = np.square(sensors().response @ clean.reshape(5, -1)).mean()
    assert found[0].sigma_y == pytest.approx(float(np.sqrt(power / 100)), rel=1e-5)


def test_edges_of_a_scene_do_not_depend_on_its_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extremes of the edge magnitude over tiles are those of the scene at once."""
    for seed in range(3):
        data = cube(64, 64, seed=seed)
        found = []
        for side in (256, 16):
            monkeypatch.setattr(scenes_module, "TILE", side)
            figures = Crops(opened(data), sensors(), patch=16)._figures_of(0)
            found.append((figures.low, figures.high))
        assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_large_scenes_are_measured_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes_module, "TILE", 8)
    monkeypatch.setattr(scenes_module, "MOST_TILES", 6)
    found = opened(cube(64, 64)).scenes[0]
    assert found.sampled
    assert len(list(found.tiles())) == 6
    whole = cube(64, 64).values
    assert whole.min() <= found.low < found.high <= whole.max()
    assert found.span > 0.5 * (int(whole.max()) - int(whole.min()))
    batch = Crops(opened(cube(64, 64)), sensors(), patch=16).draw(3, torch.Generator())
    assert float(batch.edges.max()) <= 1.0


def test_trials_score_the_central_part_as_a_scene_of_its_own() -> None:
    """Cut first, then normalised and degraded; mean over scenes of the PSNR over bands."""
    data = [cube(64, 72, seed=k) for k in range(2)]
    trial = Trial(
        opened(data),
        sensors(),
        side=34,
        device=torch.device("cpu"),
        seed=0,
        cancel=CancelToken(),
    )
    values = data[0].values[:, 16:48, 20:52].astype(np.float64)
    clean = values / (values.max() - values.min())
    np.testing.assert_allclose(trial.cases[0].batch.clean[0], clean, rtol=1e-6)
    part = central(opened(data).scenes[0], None, 4)
    assert part.shape == (5, 64, 72)
    scores = []
    for case in trial.cases:
        truth, up = (t[0].double() for t in (case.batch.clean, case.batch.up))
        peak = truth.amax((1, 2)) ** 2
        scores.append(float((10 * torch.log10(peak / (truth - up).square().mean((1, 2)))).mean()))
    assert trial.baseline == pytest.approx(np.mean(scores), rel=1e-5)
    gap = data[0].astype(np.float64)
    gap[:, 30, 30] = np.nan
    with pytest.raises(CubeError, match=r"scene-0: values are missing in its central part"):
        Trial(
            opened(gap),
            sensors(),
            side=32,
            device=torch.device("cpu"),
            seed=0,
            cancel=CancelToken(),
        )


def test_large_validation_scenes_are_restored_by_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole scene of any size is tried in bounded memory."""
    seen: list[int] = []

    class Network(torch.nn.Module):
        def restore(self, up: Any, msi: Any, edges: Any, generator: Any, tile: int = 0) -> Any:
            seen.append(tile)
            yield up

    trial = Trial(
        opened(cube(64, 72)),
        sensors(),
        side=None,
        device=torch.device("cpu"),
        seed=0,
        cancel=CancelToken(),
    )
    for side in (72, 71):
        monkeypatch.setattr(trial_module, "TILE", side)
        list(trial(Network(), Progress()))
    assert seen == [0, 71]
    assert list(trial.figures.values()) == [pytest.approx(trial.baseline)]
