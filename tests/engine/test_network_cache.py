"""Networks kept for the next run on the same pair."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_pairs import CPU, drain, observation, problem
from torch import nn

from napari_hsfusion.engine import checkpoint
from napari_hsfusion.engine.events import CancelToken, Finished, Started, Step
from napari_hsfusion.engine.methods import get_method
from napari_hsfusion.engine.network_cache import CACHE, NetworkCache, forget_networks
from napari_hsfusion.engine.observation import Problem
from napari_hsfusion.engine.selflearning import networks_cached, obtain_networks
from napari_hsfusion.errors import Cancelled
from napari_hsfusion.params import ArgsDiffParams

PARAMS = ArgsDiffParams(
    d=3,
    spatial_base=8,
    spatial_levels=1,
    spatial_blocks=1,
    spatial_steps=3,
    spatial_batch=2,
    spatial_patch=8,
    spectral_steps=2,
)


def start(params: ArgsDiffParams = PARAMS, pair: Problem | None = None, **more: Any) -> Any:
    options: dict[str, Any] = {
        "spectral": True,
        "highest": None,
        "folder": None,
        "seed": 0,
        "device": CPU,
        "dtype": torch.float64,
        "cancel": CancelToken(),
    }
    return obtain_networks(pair or problem(), params, **(options | more))


def weights(*networks: nn.Module | None) -> list[torch.Tensor]:
    return [p.clone() for net in networks if net is not None for p in net.parameters()]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


@pytest.mark.usefixtures("networks_kept")
def test_the_second_run_trains_nothing() -> None:
    """The same bits and the same record; both stages jump to their ends."""
    steps, (spatial, spectral, origin) = drain(start())
    assert len(steps) == 5
    assert origin["networks_cached"] is False
    again, (spatial2, spectral2, origin2) = drain(start())
    assert again == [
        Step("train spatial network", 3, 3),
        Step("train spectral network", 2, 2),
    ]
    assert origin2 == {**origin, "networks_cached": True}
    assert same(weights(spatial, spectral), weights(spatial2, spectral2))
    assert not spatial2.training
    # what a run does to its networks is nothing to the next one
    with torch.no_grad():
        next(spatial2.parameters()).zero_()
    _, (spatial3, *_) = drain(start())
    assert same(weights(spatial), weights(spatial3))
    forget_networks()
    assert len(drain(start())[0]) == 5


@pytest.mark.usefixtures("networks_kept")
def test_what_another_training_is() -> None:
    """Another pair, mask, seed, number format or setting of the training."""
    drain(start())
    masked = problem()
    keep = torch.ones_like(masked.x[0])
    keep[0, 0] = 0
    others: list[Any] = [
        start(seed=1),
        start(dtype=torch.float32),
        start(parts=2),
        start(highest=0.3),
        start(pair=problem(seed=1)),
        start(pair=replace(masked, mask_x=keep)),
        *(
            start(replace(PARAMS, **change))
            for change in (
                {"d": 2},
                {"spatial_rate": 1e-3},
                {"spectral_batch": 9},
                {"average": 0.9},
                {"patience": 100},
            )
        ),
    ]
    for run in others:
        event = next(run)
        run.close()
        assert event.loss is not None, "it was taken from the cache"
    # what only the sampler reads
    for change in ({"T": 9}, {"rho1": 0.01}, {"gradient": "x0"}):
        assert len(drain(start(replace(PARAMS, **change)))[0]) == 2


@pytest.mark.usefixtures("networks_kept")
def test_a_cancelled_training_leaves_nothing() -> None:
    token = CancelToken()
    run = start(cancel=token)
    for _ in range(4):
        next(run)
    token.cancel()
    with pytest.raises(Cancelled):
        next(run)
    assert len(CACHE) == 0
    closed = start()
    next(closed)
    closed.close()
    assert len(CACHE) == 0


@pytest.mark.usefixtures("networks_kept")
def test_kept_networks_are_saved_too(tmp_path: Path) -> None:
    """A folder gets them without a training, and then they come from there."""
    _, (spatial, *_) = drain(start())
    events, (_, _, origin) = drain(start(folder=tmp_path))
    assert len(events) == 2
    assert origin["networks_cached"] is True
    assert checkpoint.has_networks(tmp_path)
    _, (loaded, _, origin) = drain(start(folder=tmp_path))
    assert origin["networks_loaded"] is True
    assert origin["networks_training"]["spatial"] == {"steps": 3}
    assert same(weights(spatial), weights(loaded))


@pytest.mark.usefixtures("networks_kept")
@pytest.mark.parametrize(
    "change", [{"sampler": "published", "T": 3}, {"sampler": "proximal", "weight": 0.5}]
)
def test_run_again_with_another_sampler(change: dict[str, Any]) -> None:
    """The whole method: no training, the same cube, and a cost without the training."""
    pair = observation()[1]
    method = get_method("args-diff")
    params = replace(PARAMS, **change, denoise=False, levels=2)

    def run(params: ArgsDiffParams) -> tuple[Started, list[Step], Finished]:
        events = list(method.run(pair, params))
        return events[0], [e for e in events if isinstance(e, Step)], events[-1]

    begun, steps, first = run(params)
    assert begun.estimate["training_seconds"] > 0
    trained = [s for s in steps if s.stage.startswith("train")]
    assert len(trained) >= 3
    begun, steps, second = run(params)
    assert begun.estimate["training_seconds"] == 0
    again = [s for s in steps if s.stage.startswith("train")]
    assert all(s.index == s.total for s in again)
    assert {s.stage for s in again} == {name for name in begun.stages if name.startswith("train")}
    assert np.array_equal(first.cube, second.cube)
    assert second.record == {**first.record, "networks_cached": True}
    other = {"T": 2} if params.sampler == "published" else {"weight": 0.1}
    _, steps, third = run(replace(params, **other))
    assert third.record["networks_cached"] is True
    assert not np.array_equal(first.cube, third.cube)


@pytest.mark.usefixtures("networks_kept")
def test_denoised_images_are_known_by_what_they_became() -> None:
    pair = observation()[1]
    method = get_method("args-diff")
    params = replace(PARAMS, sampler="proximal", weight=0.5, levels=2)
    for denoise, cached in ((True, False), (False, False), (True, True), (False, True)):
        *_, end = method.run(pair, replace(params, denoise=denoise))
        assert end.record["networks_cached"] is cached


def _net(value: float, size: int = 10) -> nn.Module:
    net = nn.Linear(size, 1, bias=False)
    nn.init.constant_(net.weight, value)
    return net


def test_limits() -> None:
    """The last used stay; what is too large alone is not kept at all."""
    cache = NetworkCache(most=3, most_bytes=100)
    for k in range(3):
        cache.put(str(k), {"n": _net(k, 8)}, {"k": k})
    assert len(cache) == 3  # 96 bytes
    assert cache.get("0") is not None
    cache.put("3", {"n": _net(3, 1)}, {})
    assert [str(k) in cache for k in range(4)] == [True, False, True, True]
    cache.put("4", {"n": _net(4, 20)}, {})
    assert [str(k) in cache for k in range(5)] == [False, False, False, True, True]
    cache.put("5", {"n": _net(5, 26)}, {})
    assert "5" not in cache
    assert len(cache) == 2
    found = cache.get("4")
    assert found is not None
    assert torch.equal(found.fill("n", _net(0, 20)).weight, _net(4, 20).weight)
    cache.clear()
    assert cache.get("4") is None


def test_many_threads_at_once() -> None:
    """No update is lost, and no limit is broken."""
    cache = NetworkCache(most=5)
    net, failed = _net(1.0), []

    def work(k: int) -> None:
        try:
            for n in range(50):
                cache.put(f"{k} {n % 7}", {"n": net}, {"n": n})
                found = cache.get(f"{k} {n % 7}")
                assert found is None or found.record["n"] <= n
                assert len(cache) <= 5
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(cache) == 5


def test_what_is_known_before_a_run() -> None:
    """No training: the answer alone."""
    asked = {"spectral": True, "highest": None, "seed": 0, "device": CPU, "dtype": torch.float64}
    assert networks_cached(problem(), PARAMS, **asked) is False
