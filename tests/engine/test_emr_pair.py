"""EMR-Diff on a pair: one ratio down, training there, the start, and agreement with the images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_pairs import CPU, dense, observation, problem, response, scene

from napari_hsfusion.engine.diffusion.edges import edge_map
from napari_hsfusion.engine.emr.batch import Batch
from napari_hsfusion.engine.emr.config import EmrConfig
from napari_hsfusion.engine.emr.consistency import make_consistent, misfit_levels, misfits
from napari_hsfusion.engine.emr.model import EmrModel
from napari_hsfusion.engine.emr.on_pair import SmallScene, small_scene, train_on_pair, worth
from napari_hsfusion.engine.emr.start import start_estimate
from napari_hsfusion.engine.events import CancelToken, Step
from napari_hsfusion.engine.nets.initialise import initialise
from napari_hsfusion.engine.observation import Observation, Problem
from napari_hsfusion.engine.operators import SpatialDegradation, SpectralResponse
from napari_hsfusion.engine.training_team import Team
from napari_hsfusion.errors import Cancelled, PairError, WeightsError

F64 = torch.float64
KERNEL = np.outer([1.0, 3.0, 2.0], [1.0, 1.0, 4.0]) / 36 + np.diag([0.05, 0.1, -0.05])
FACTORIES: dict[str, Any] = {
    "bicubic": SpatialDegradation.bicubic,
    "gaussian": lambda shape, ratio: SpatialDegradation.gaussian(shape, ratio, 1.7),
    "gauss3-bicubic": SpatialDegradation.gauss3_bicubic,
    "box": SpatialDegradation.box,
    "kernel": lambda shape, ratio: SpatialDegradation.from_kernel(KERNEL, shape, ratio),
}


def pair(
    height: int = 64, width: int = 96, bands: int = 6, psf: str = "bicubic", **more: Any
) -> tuple[np.ndarray, Observation]:
    """A simulated pair at a ratio of 4, large enough to be degraded once more."""
    z = scene(bands, height, width)
    rng = np.random.default_rng(1)
    spatial = FACTORIES[psf]((height, width), 4)
    spectral = SpectralResponse(response(bands, 2))
    x, y = (op.forward(torch.as_tensor(z)).numpy() for op in (spatial, spectral))
    x, y = (i + 0.002 * rng.standard_normal(i.shape) for i in (x, y))
    return z, Observation(x, y, spatial, spectral, **more)


def rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(values)))))


@pytest.mark.parametrize("psf", FACTORIES)
def test_smaller_operators(psf: str) -> None:
    """Made smaller, a degradation is the one that was built small; its adjoint is one."""
    large = FACTORIES[psf]((48, 64), 4)
    for shape in ((32, 36), (48, 40), (20, 64)):
        small = large.resized(shape)
        assert (small.shape_hr, small.ratio, small.phase) == (shape, 4, large.phase)
        np.testing.assert_allclose(dense(small), dense(FACTORIES[psf](shape, 4)), atol=1e-12)
        z = torch.as_tensor(np.random.default_rng(0).random((2, *shape)))
        x = torch.as_tensor(np.random.default_rng(1).random((2, shape[0] // 4, shape[1] // 4)))
        forth, back = (small.forward(z) * x).sum(), (z * small.adjoint(x)).sum()
        assert float(forth) == pytest.approx(float(back), rel=1e-12)
        np.testing.assert_allclose(
            small.upsample(x), FACTORIES[psf](shape, 4).upsample(x), atol=1e-12
        )
    same = large.resized((48, 64))
    np.testing.assert_array_equal(dense(same), dense(large))


@pytest.mark.parametrize("psf", ["bicubic", "gaussian", "gauss3-bicubic", "box"])
def test_very_small_operators_keep_their_weight(psf: str) -> None:
    """Where the kernel is wider than the image, rows still sum to one."""
    tiny = FACTORIES[psf]((48, 64), 4).resized((8, 4))
    np.testing.assert_allclose(dense(tiny).sum(1), 1.0, atol=1e-12)


def test_operators_do_not_grow() -> None:
    large = SpatialDegradation.box((16, 24), 4)
    with pytest.raises(PairError, match=r"expected at most \(16, 24\) pixels, got \(20, 24\)"):
        large.resized((20, 24))
    with pytest.raises(PairError, match="multiple of the ratio"):
        large.resized((16, 22))


def test_the_pair_one_ratio_down() -> None:
    """The LR-HSI is the truth there; both images are degraded by the pair's own response."""
    _, seen = pair(72, 100)  # 18 x 25 LR pixels, of which 16 x 24 are used
    full = seen.prepare(CPU, F64)
    small = small_scene(full, "bicubic", 0)
    batch = small.batch
    assert torch.equal(batch.clean[0], full.x[:, :16, :24])
    down = SpatialDegradation.bicubic((16, 24), 4)
    torch.testing.assert_close(batch.coarse[0], down.forward(full.x[:, :16, :24]))
    torch.testing.assert_close(batch.up[0], down.upsample(batch.coarse[0]))
    torch.testing.assert_close(batch.msi[0], full.spatial.forward(full.y)[:, :16, :24])
    torch.testing.assert_close(batch.edges, edge_map(batch.msi))
    assert small.kept == 24 - 4
    # the degraded MSI is what the MSI's response makes of the truth there
    made = torch.tensordot(full.response, batch.clean[0], dims=1)
    assert rms(made - batch.msi[0]) < 0.01 * rms(batch.msi)


def test_the_closed_form_start() -> None:
    """It has the detail that interpolation lacks, at full size and one ratio down."""
    z, seen = pair()
    full = seen.prepare(CPU, F64)
    truth = torch.as_tensor(z) / full.scale
    errors = {k: rms(start_estimate(full, k) - truth) for k in ("bicubic", "subspace")}
    assert errors["subspace"] < 0.5 * errors["bicubic"]
    assert torch.equal(start_estimate(full, "bicubic"), full.spatial.upsample(full.x))
    small = {k: small_scene(full, k, 0).batch for k in ("bicubic", "subspace")}
    below = {k: rms(b.up - b.clean) for k, b in small.items()}
    assert below["subspace"] < 0.7 * below["bicubic"]
    with pytest.raises(WeightsError, match="start: expected one of bicubic, subspace, got 'zero'"):
        start_estimate(full, "zero")


@pytest.mark.parametrize("start", ["bicubic", "subspace"])
def test_gaps_stay_out_of_the_small_pair(start: str) -> None:
    """Garbage under a mask changes nothing; a start with gaps is near the one without."""
    _, seen = pair(psf="box", noise_x=0.002, noise_y=0.002)
    holes_x = np.ones(seen.valid_x.shape, bool)
    holes_x[3:5, 6:8] = False
    holes_y = np.ones(seen.valid_y.shape, bool)
    holes_y[40:44, 70:72] = False
    batches = []
    for rubbish in (9.0, -50.0):
        x, y = seen.x.copy(), seen.y.copy()
        x[:, ~holes_x] = rubbish
        y[:, ~holes_y] = rubbish
        gapped = Observation(
            x,
            y,
            seen.spatial,
            seen.spectral,
            valid_x=holes_x,
            valid_y=holes_y,
            noise_x=0.002,
            noise_y=0.002,
        )
        batches.append(small_scene(gapped.prepare(CPU, F64), start, 0).batch)
    for name in ("clean", "coarse", "up", "msi", "edges"):
        first, second = (getattr(b, name) for b in batches)
        assert torch.equal(first, second), name
        assert bool(torch.isfinite(first).all())
    whole = small_scene(seen.prepare(CPU, F64), start, 0).batch
    far = (..., slice(None, 8), slice(20, None))
    assert rms((batches[0].up - whole.up)[far]) < 0.2 * rms((whole.up - whole.clean)[far])


def test_pairs_that_are_too_small_or_have_gaps_everywhere() -> None:
    _, seen = observation()  # 4 x 6 LR pixels
    with pytest.raises(PairError, match=r"at least 12 x 12 pixels at a ratio of 4, got 4 x 6"):
        small_scene(seen.prepare(CPU, F64), "bicubic", 0)
    _, seen = pair(64, 64)
    holes = np.ones((16, 16), bool)
    holes[::4, ::4] = False
    gapped = Observation(seen.x, seen.y, seen.spatial, seen.spectral, valid_x=holes)
    with pytest.raises(PairError, match="gaps touch every coarse pixel"):
        small_scene(gapped.prepare(CPU, F64), "bicubic", 0)


def constructed(change: torch.Tensor, kept: int, batch: Batch) -> tuple[SmallScene, Any]:
    """A scene, and a model that gives its start plus a change."""

    def restore(up: Any, msi: Any, edges: Any, generator: torch.Generator) -> Any:
        assert up is batch.up
        yield up - 7.0
        yield up + change

    return SmallScene(batch, kept), SimpleNamespace(restore=restore)


def test_worth_of_a_network() -> None:
    """The least-squares share on the columns held back, and on them alone, within [0, 1]."""
    batch = small_scene(pair()[1].prepare(CPU, F64), "bicubic", 0).batch
    wanted = batch.clean - batch.up
    held = torch.zeros_like(wanted)
    held[..., 18:] = 1
    for factor, share in ((2.0, 0.5), (1.0, 1.0), (0.5, 1.0), (-1.0, 0.0), (4.0, 0.25), (0.0, 0.0)):
        # the opposite where it was trained
        change = factor * (held * wanted) - 3.0 * (1 - held) * wanted
        got = worth(*constructed(change, 18, batch), 0)
        assert got == pytest.approx(share, abs=1e-12)
    generator = torch.Generator().manual_seed(0)
    change = wanted + rms(wanted) * torch.randn(wanted.shape, generator=generator, dtype=F64)
    got = worth(*constructed(change, 0, batch), 0)
    errors = [float((s * change - wanted).square().sum()) for s in (got - 0.01, got, got + 0.01)]
    assert 0 < got < 1
    assert errors[1] < min(errors[0], errors[2])


class Spy(EmrModel):
    """Keeps the batches that it is trained on."""

    def __init__(self, config: EmrConfig) -> None:
        super().__init__(config)
        self.seen: list[Batch] = []

    def loss(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        """As the model's."""
        self.seen.append(batch)
        return super().loss(batch, generator)


def small_model(kind: type[EmrModel] = EmrModel, **options: Any) -> EmrModel:
    given = {"bands": 6, "msi_bands": 2, "ratio": 4, "width": 4, "steps": 2, **options}
    made = kind(EmrConfig(**given)).to(F64)
    initialise(made, torch.Generator().manual_seed(0))
    return made


def run(made: EmrModel, small: SmallScene, **options: Any) -> tuple[list[Step], EmrModel]:
    given: dict[str, Any] = {
        **{"steps": 3, "batch": 2, "patch": 12, "rate": 1e-3, "average": 0.9, "seed": 0},
        **options,
    }
    events = train_on_pair(small, made, team=Team(CPU), cancel=CancelToken(), **given)
    steps = []
    while True:
        try:
            steps.append(next(events))
        except StopIteration as stop:
            return steps, stop.value


@pytest.mark.parametrize("patch", [8, 14, 64])
def test_crops_of_the_part_that_is_kept(patch: int) -> None:
    """Aligned, mirrored and turned as one, never larger than the patch, never of the rest."""
    full = pair(psf="box")[1].prepare(CPU, F64)
    small = small_scene(full, "bicubic", 0)
    marked = {}
    for name in ("clean", "coarse", "up", "msi", "edges"):
        image = getattr(small.batch, name).clone()
        image[..., small.kept // (4 if name == "coarse" else 1) :] = float("nan")
        marked[name] = image
    made = small_model(Spy)
    assert isinstance(made, Spy)
    run(made, SmallScene(Batch(**marked), small.kept), patch=patch, steps=6)
    sides = {8: (8, 8), 14: (12, 12), 64: (16, small.kept)}[patch]
    tops = set()
    for batch in made.seen:
        assert len(batch) == 2
        assert tuple(batch.clean.shape[-2:]) == sides
        assert all(bool(torch.isfinite(getattr(batch, name)).all()) for name in marked)
        means = torch.nn.functional.avg_pool2d(batch.clean, 4)
        torch.testing.assert_close(means, batch.coarse)
        made_msi = torch.einsum("kb,nbyx->nkyx", full.response, batch.clean)
        assert rms(made_msi - batch.msi) < 0.02 * rms(batch.msi)
        tops.add(round(float(batch.clean[0, 0, 0, 0]), 9))
    assert len(tops) > 2


def test_training_on_a_pair() -> None:
    """Steps with their loss; it falls; averaged weights, ready to restore; the same again."""
    small = small_scene(pair()[1].prepare(CPU, F64), "bicubic", 0)
    steps, learnt = run(small_model(architecture="unet"), small, steps=40, rate=3e-3)
    assert [s.index for s in steps] == list(range(1, 41))
    assert {(s.stage, s.total) for s in steps} == {("train network", 40)}
    losses = [float(s.loss or 0) for s in steps]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    assert not learnt.training
    assert 0 < worth(small, learnt, 0) <= 1
    first, second = (run(small_model(architecture="unet"), small)[1].state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    other = run(small_model(architecture="unet"), small, seed=1)[1].state_dict()
    assert any(not torch.equal(first[k], other[k]) for k in first)
    for options in ({"rate": 1e-2}, {"average": 0.0}, {"batch": 1}, {"patch": 8}, {"steps": 4}):
        changed = run(small_model(architecture="unet"), small, **options)[1].state_dict()
        assert any(not torch.equal(first[k], changed[k]) for k in first), options


def test_training_on_a_pair_is_cancelled() -> None:
    small = small_scene(pair()[1].prepare(CPU, F64), "bicubic", 0)
    token = CancelToken()
    events = train_on_pair(
        small,
        small_model(architecture="unet"),
        steps=9,
        batch=1,
        patch=8,
        rate=1e-3,
        average=0.9,
        seed=0,
        team=Team(CPU),
        cancel=token,
    )
    next(events)
    token.cancel()
    with pytest.raises(Cancelled):
        next(events)


def total_misfit(full: Problem, cube: torch.Tensor) -> float:
    """Both misfits, weighed by the noise."""
    levels = misfit_levels(full, cube)
    return (levels["lr_hsi"] / full.sigma_x) ** 2 + (levels["hr_msi"] / full.sigma_y) ** 2


@pytest.mark.parametrize("gaps", [False, True])
def test_agreement_with_both_images(gaps: bool) -> None:
    """A cube that misses them is brought nearer, to them and to the truth; it stays as it was."""
    holes = np.ones((16, 24), bool)
    holes[4:6, 9:12] = not gaps
    z, seen = pair(noise_x=0.002, noise_y=0.002, valid_x=holes)
    full = seen.prepare(CPU, F64)
    truth = torch.as_tensor(z) / full.scale
    smooth = full.spatial.upsample(full.x)
    for cube in (smooth, truth + 0.3 * (truth - smooth), 0.9 * truth):
        before = cube.clone()
        done = make_consistent(full, cube, 0)
        assert torch.equal(cube, before)
        assert done.data_ptr() != cube.data_ptr()
        assert total_misfit(full, done) < 0.3 * total_misfit(full, cube)
        assert rms(done - truth) < 0.8 * rms(cube - truth)
        again = make_consistent(full, done, 0)
        assert rms(again - done) < 0.1 * rms(done - cube)


def test_a_cube_that_fits_is_left_alone() -> None:
    """The truth differs from both images by their noise alone: hardly anything is changed."""
    z, seen = pair(noise_x=0.002, noise_y=0.002)
    full = seen.prepare(CPU, F64)
    truth = torch.as_tensor(z) / full.scale
    done = make_consistent(full, truth, 0)
    assert rms(done - truth) < 0.25 * full.sigma_y
    interpolated = full.spatial.upsample(full.x)
    assert rms(done - truth) < 0.02 * rms(make_consistent(full, interpolated, 0) - interpolated)


def test_misfits() -> None:
    """X - H(Z) and Y - Z x3 R, their levels in input units over valid pixels alone."""
    full = problem()
    cube = full.spatial.upsample(full.x) + 0.01
    low, high = misfits(full, cube)
    torch.testing.assert_close(low, full.x - full.spatial.forward(cube))
    wanted = full.y - torch.einsum("kb,byx->kyx", full.response, cube)
    torch.testing.assert_close(high, wanted)
    levels = misfit_levels(full, cube)
    assert levels["lr_hsi"] == pytest.approx(rms(low) * full.scale, rel=1e-9)
    assert levels["hr_msi"] == pytest.approx(rms(high) * full.scale, rel=1e-9)
    _, seen = observation(noise_x=0.002, noise_y=0.002)
    holes = np.ones((4, 6), bool)
    holes[1, 2] = False
    x = seen.x.copy()
    x[:, 1, 2] = 1e3
    gapped = Observation(x, seen.y, seen.spatial, seen.spectral, valid_x=holes).prepare(CPU, F64)
    cube = gapped.spatial.upsample(gapped.x)
    low = (gapped.x - gapped.spatial.forward(cube)).numpy()[:, holes]
    assert misfit_levels(gapped, cube)["lr_hsi"] == pytest.approx(rms(low) * gapped.scale)
