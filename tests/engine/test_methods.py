"""Whole runs of every method: events, seeds, cancelling, masks and odd input."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_pairs import CPU, observation, response, scene

from napari_hsfusion.engine.events import CancelToken, Finished, Preview, Started, Step
from napari_hsfusion.engine.methods import base, get_method, method_names
from napari_hsfusion.engine.observation import Observation
from napari_hsfusion.engine.operators import SpatialDegradation, SpectralResponse
from napari_hsfusion.errors import Cancelled, PairError, ParameterError
from napari_hsfusion.params import Params

QUICK = {
    "spatial_steps": 3,
    "spatial_base": 8,
    "spatial_levels": 2,
    "spatial_blocks": 1,
    "spatial_batch": 2,
    "spatial_patch": 8,
    "spatial_stride": 4,
}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "bicubic": ("bicubic", {}),
    "subspace": ("subspace", {"d": 4}),
    "subspace with classes": ("subspace", {"d": 4, "classes": 4}),
    "published": ("args-diff", {**QUICK, "d": 4, "spectral_steps": 4, "T": 5}),
    "published at x0": (
        "args-diff",
        {**QUICK, "d": 4, "spectral_steps": 4, "T": 5, "gradient": "x0"},
    ),
    "proximal": (
        "args-diff",
        {**QUICK, "d": 4, "sampler": "proximal", "levels": 2, "weight": 0.3},
    ),
}


def _settings(name: str) -> tuple[Any, Params]:
    method, settings = RUNS[name]
    found = get_method(method)
    return found, found.params.from_settings(settings)


def _run(name: str, pair: Observation, **more: Any) -> list[Any]:
    method, params = _settings(name)
    return list(method.run(pair, params, **more))


def test_registry() -> None:
    """Names lead to methods; presets are of the method's class; unknown names list the known."""
    assert method_names() == ("bicubic", "subspace", "args-diff", "emr-diff")
    for name in method_names():
        method = get_method(name)
        assert method.name == name
        assert method.default_preset in method.presets
        assert all(isinstance(p, method.params) for p in method.presets.values())
        assert method.description.endswith(".")
    with pytest.raises(ParameterError, match="unknown method 'magic'; known: bicubic, subspace"):
        get_method("magic")


@pytest.mark.parametrize("name", RUNS)
def test_events_tell_the_run(name: str) -> None:
    """Started, then every announced step in order, previews, and the finished cube."""
    z, pair = observation()
    events = _run(name, pair, seed=3)
    started, finished = events[0], events[-1]
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    counted = {stage: 0 for stage in started.stages}
    order = []
    for event in events[1:-1]:
        if isinstance(event, Step):
            counted[event.stage] += 1
            assert event.index == counted[event.stage]
            assert event.total == started.stages[event.stage]
            order.append(event.stage)
        else:
            assert isinstance(event, Preview)
            assert event.bands(0).shape == z.shape[1:]
    assert counted == dict(started.stages)
    assert list(dict.fromkeys(order)) == list(started.stages)
    assert finished.cube.shape == z.shape
    assert finished.cube.dtype == np.float32
    assert np.isfinite(finished.cube).all()
    record = json.loads(json.dumps(dict(finished.record)))
    assert record["method"] == RUNS[name][0]
    assert record["seed"] == 3
    assert record["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("name", RUNS)
def test_same_seed_same_bits(name: str) -> None:
    """Two runs of one seed are equal bit for bit; the sampled ones differ with the seed."""
    _, pair = observation()
    first = _run(name, pair, seed=1)[-1].cube
    second = _run(name, pair, seed=1)[-1].cube
    assert first.tobytes() == second.tobytes()
    if RUNS[name][0] == "args-diff":
        assert not np.array_equal(first, _run(name, pair, seed=2)[-1].cube)


def _next_step(run: Any) -> None:
    for event in run:
        if isinstance(event, Step | Finished):
            return


@pytest.mark.parametrize("name", RUNS)
def test_cancel_before_any_event_and_after_each_step(name: str) -> None:
    """A cancelled run raises before its next step and keeps nothing."""
    _, pair = observation()
    method, params = _settings(name)
    total = sum(isinstance(e, Step) for e in method.run(pair, params))
    for stop in range(total):
        token = CancelToken()
        run = method.run(pair, params, cancel=token)
        for _ in range(stop):
            _next_step(run)
        token.cancel()
        with pytest.raises(Cancelled):
            _next_step(run)
        with pytest.raises(StopIteration):
            next(run)


def test_cancel_from_another_thread() -> None:
    """The token is safe across threads."""
    _, pair = observation()
    method, params = _settings("published")
    token = CancelToken()
    run = method.run(pair, params, cancel=token)
    next(run)
    thread = threading.Thread(target=token.cancel)
    thread.start()
    thread.join()
    with pytest.raises(Cancelled):
        next(run)


@pytest.mark.parametrize("name", ["published", "proximal"])
def test_a_closed_run_leaves_no_tensor(name: str) -> None:
    """Closing the generator half-way frees what it held."""
    _, pair = observation()
    method, params = _settings(name)
    run = method.run(pair, params)
    kept = None
    for event in run:
        if isinstance(event, Preview):
            kept = weakref.ref(event.coefficients)
            break
    del event
    run.close()
    del run
    gc.collect()
    assert kept is not None
    assert kept() is None


@pytest.mark.parametrize("name", RUNS)
def test_masked_pixels_never_spread(name: str) -> None:
    """NaN input gives NaN there and no other, and wild values under the mask change nothing."""
    _, pair = observation()
    x, y = pair.x.copy(), pair.y.copy()
    x[:, 1, 2] = np.nan
    y[1, 14, 20] = np.nan
    masked = Observation(x, y, pair.spatial, pair.spectral)
    cube = _run(name, masked)[-1].cube
    known = np.ones((16, 24), dtype=bool)
    known[4:8, 8:12] = False
    known[14, 20] = False
    assert np.isnan(cube[:, ~known]).all()
    assert np.isfinite(cube[:, known]).all()


def test_closed_form_hardly_notices_a_distant_hole() -> None:
    """Far from masked pixels the estimate is that of the whole pair."""
    _, pair = observation()
    x = pair.x.copy()
    x[:, 0, 0] = np.nan
    whole = _run("subspace", pair)[-1].cube
    holed = _run("subspace", Observation(x, pair.y, pair.spatial, pair.spectral))[-1].cube
    far = np.s_[:, 8:, 12:]
    assert np.abs(whole[far] - holed[far]).max() < 0.02 * np.ptp(whole)


@pytest.mark.parametrize("name", RUNS)
def test_constant_bands_and_a_single_msi_band(name: str) -> None:
    """Constant and zero bands, and a panchromatic companion, are ordinary input."""
    z = scene()
    z[2] = 0.25
    z[5] = 0.0
    spatial = SpatialDegradation.bicubic(z.shape[1:], 4)
    spectral = SpectralResponse(response(9, 1))
    x = spatial.forward(torch.as_tensor(z)).numpy()
    y = spectral.forward(torch.as_tensor(z)).numpy()
    cube = _run(name, Observation(x, y, spatial, spectral))[-1].cube
    assert np.isfinite(cube).all()
    if RUNS[name][0] == "subspace":
        np.testing.assert_allclose(cube[2], 0.25, atol=0.01)
        np.testing.assert_allclose(cube[5], 0.0, atol=0.01)


@pytest.mark.parametrize("name", ["subspace", "published", "proximal"])
def test_more_dimensions_than_bands(name: str) -> None:
    """A subspace of the LR-HSI cannot have more dimensions than it has bands."""
    _, pair = observation()
    method = get_method(RUNS[name][0])
    params = method.params.from_settings({**RUNS[name][1], "d": 10})
    with pytest.raises(ParameterError, match="at most the 9 bands"):
        list(method.run(pair, params))


def test_closed_form_beats_interpolation() -> None:
    """On a known scene the closed form is far nearer the truth than interpolation."""
    z, pair = observation(noise=0.001)
    errors = {n: np.square(_run(n, pair)[-1].cube - z).mean() for n in ("bicubic", "subspace")}
    assert errors["subspace"] < 0.5 * errors["bicubic"]


def test_cubes_scale_with_their_input() -> None:
    """Digital numbers in the thousands give the same cube, scaled."""
    _, pair = observation()
    scaled = Observation(pair.x * 4000, pair.y * 4000, pair.spatial, pair.spectral)
    for name in ("bicubic", "subspace", "proximal"):
        small, large = _run(name, pair)[-1].cube, _run(name, scaled)[-1].cube
        np.testing.assert_allclose(large / 4000, small, atol=2e-4)


def test_published_output_is_limited_to_the_data_range() -> None:
    """The published sampler's cube lies between zero and the pair's largest value."""
    _, pair = observation()
    cube = _run("published", pair)[-1].cube
    top = max(np.abs(pair.x).max(), np.abs(pair.y).max())
    assert cube.min() >= 0
    assert cube.max() <= top * (1 + 1e-6)


def test_networks_are_kept_and_taken_again(tmp_path: Path) -> None:
    """A second run with the folder trains nothing and gives the same cube."""
    _, pair = observation()
    for name in ("published", "proximal"):
        folder = tmp_path / name
        first = _run(name, pair, networks=folder)
        second = _run(name, pair, networks=folder)
        assert not first[-1].record["networks_loaded"]
        assert second[-1].record["networks_loaded"]
        assert not any(isinstance(e, Step) and e.stage.startswith("train") for e in second)
        assert not any(stage.startswith("train") for stage in second[0].stages)
        assert second[0].estimate["training_seconds"] == 0 < first[0].estimate["training_seconds"]
        assert first[-1].cube.tobytes() == second[-1].cube.tobytes()


def test_networks_without_a_use_are_refused(tmp_path: Path) -> None:
    """A folder for networks has no effect on a method that trains none."""
    _, pair = observation()
    for name in ("bicubic", "subspace"):
        with pytest.raises(ParameterError, match="trains no networks"):
            _run(name, pair, networks=tmp_path)


@pytest.mark.parametrize(("bands", "taken"), [(12, 8), (6, 6)])
def test_defaults_take_few_bands(bands: int, taken: int) -> None:
    """Default dimensions are those of the signal, within bounds, or what the pair has."""
    _, pair = observation(bands=bands)
    method = get_method("args-diff")
    *_, finished = method.run(pair, method.presets["fast"])
    assert finished.record["dimensions"] == taken


def test_networks_without_a_learnt_prior_are_refused(tmp_path: Path) -> None:
    """A folder that nothing would be taken from or kept in."""
    _, pair = observation()
    method = get_method("args-diff")
    with pytest.raises(ParameterError, match="networks has no effect with weight=0"):
        list(method.run(pair, method.presets["fast"], networks=tmp_path))


def test_memory_is_released_when_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the time memory is given back the run's own tensors are gone."""
    seen: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []
    prepare = Observation.prepare

    def spy(self: Observation, *args: Any) -> Any:
        made = prepare(self, *args)
        seen.append(weakref.ref(made.x))
        return made

    monkeypatch.setattr(Observation, "prepare", spy)
    monkeypatch.setattr(base, "release", lambda _: alive.append(seen[-1]() is not None))
    _, pair = observation()
    _run("subspace", pair)
    run = get_method("subspace").run(pair, _settings("subspace")[1])
    next(run)
    run.close()
    assert alive == [False, False]


def test_pairs_that_cannot_be_fused() -> None:
    """An empty LR-HSI, or images that are nowhere valid together, are refused."""
    _, pair = observation()
    empty = Observation(pair.x * 0, pair.y, pair.spatial, pair.spectral)
    with pytest.raises(PairError, match="LR-HSI is zero everywhere"):
        _run("subspace", empty)
    left = np.zeros((4, 6), dtype=bool)
    left[:, :3] = True
    with pytest.raises(PairError, match="no valid pixel of the HR-MSI lies on"):
        Observation(
            pair.x,
            pair.y,
            pair.spatial,
            pair.spectral,
            valid_x=left,
            valid_y=~left.repeat(4, 0).repeat(4, 1),
        )


@pytest.mark.parametrize("name", ["subspace with classes", "proximal"])
def test_a_constant_msi_has_one_class(name: str) -> None:
    """Without contrast there is nothing to classify: one covariance serves."""
    _, pair = observation()
    flat = Observation(pair.x, np.full_like(pair.y, 0.2), pair.spatial, pair.spectral)
    assert np.isfinite(_run(name, flat)[-1].cube).all()


def test_estimates_are_given_before_the_run() -> None:
    """Costs are positive, grow with the budget, and the published one is days on a CPU."""
    _, pair = observation()
    args = get_method("args-diff")
    costs = {n: args.estimate(pair.x.shape, pair.y.shape, p, CPU) for n, p in args.presets.items()}
    assert costs["fast"]["seconds"] < costs["balanced"]["seconds"] < costs["paper"]["seconds"]
    assert costs["paper"]["training_seconds"] > 3600
    for name in method_names():
        method = get_method(name)
        cost = method.estimate(
            pair.x.shape, pair.y.shape, method.presets[method.default_preset], CPU
        )
        assert cost["seconds"] > 0
        assert cost["bytes"] > 0


@pytest.mark.gpu
@pytest.mark.parametrize("name", RUNS)
def test_gpu_agrees_with_cpu(name: str) -> None:
    """The same seed gives the same cube on both devices, to float32 accuracy."""
    _, pair = observation()
    cpu = _run(name, pair)[-1].cube
    gpu = _run(name, pair, device=torch.device("cuda", 0))[-1].cube
    np.testing.assert_allclose(gpu, cpu, atol=1e-3)
