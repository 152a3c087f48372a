"""Runs in less memory: what is there, which rung is taken, and that the result stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_pairs import CPU, observation

from napari_hsfusion.engine import memory, selflearning
from napari_hsfusion.engine.cost import args_diff_cost
from napari_hsfusion.engine.events import Event, Finished, Notice, Started
from napari_hsfusion.engine.memory import PLAIN, Descent, Economy, Rung, TooLarge, ladder, ran_out
from napari_hsfusion.engine.methods import args_diff, emr_diff, get_method
from napari_hsfusion.engine.nets.build import spatial_network
from napari_hsfusion.engine.nets.initialise import initialise
from napari_hsfusion.engine.nets.recompute import recomputed
from napari_hsfusion.engine.nets.unet import ResidualBlock
from napari_hsfusion.errors import DeviceError
from napari_hsfusion.params import ArgsDiffParams, EmrDiffParams

SMALL: dict[str, Any] = {
    **{"d": 3, "spatial_base": 8, "spatial_levels": 2, "spatial_blocks": 1, "spatial_patch": 16},
    **{"spatial_steps": 2, "spatial_batch": 32, "spatial_stride": 4, "T": 2, "spectral_steps": 1},
}


def events(params: Any, method: str = "args-diff", ratio: int = 4, **more: Any) -> list[Event]:
    _, pair = observation(ratio)
    run = get_method(method).run(pair, params, dtype=torch.float64, **more)
    return list(run)


def cube(found: list[Event]) -> np.ndarray:
    assert isinstance(found[-1], Finished)
    return found[-1].cube


def fallback(found: list[Event]) -> dict[str, Any]:
    assert isinstance(found[-1], Finished)
    return dict(found[-1].record["fallback"])


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float | None]]:
    """Bytes that are said to be free, by kind of device."""
    said: dict[str, float | None] = {"cpu": None}
    monkeypatch.setattr(memory, "free_bytes", lambda device: said[device.type])
    monkeypatch.setattr(memory, "_swap", lambda: 0.0)
    return said


def test_a_batch_in_parts_where_the_whole_does_not_fit(free: dict[str, float | None]) -> None:
    params = ArgsDiffParams(**SMALL)
    plain = events(params)
    assert "fallback" not in plain[-1].record
    assert not any(isinstance(event, Notice) for event in plain)
    whole = plain[0].estimate["bytes"]
    free["cpu"] = whole * 1.2 * 0.99
    found = events(params)
    first, second = found[:2]
    assert isinstance(first, Started)
    assert isinstance(second, Notice)
    assert first.estimate["bytes"] < whole
    done = fallback(found)
    assert done["because"] == "estimate"
    assert done["training_parts"] == 2
    assert done["needed_bytes"] == int(whole)
    assert done["free_bytes"] == int(free["cpu"])
    assert "2 parts" in second.text
    np.testing.assert_allclose(cube(found), cube(plain), rtol=0, atol=1e-9)


def test_what_a_run_expects_is_of_the_dimensions_it_finds() -> None:
    """Samples included; the record has the parameters as they came."""
    _, pair = observation(bands=24)
    method = get_method("args-diff")
    params = replace(method.presets["fast"], classes=2, partitions=1, regressions=0)
    started, *_, finished = method.run(pair, params, dtype=torch.float64, samples=2)
    d = finished.record["dimensions"]
    assert d < 16
    shapes = pair.x.shape, pair.y.shape
    assert started.estimate == method.estimate(*shapes, replace(params, d=d), CPU, 2)
    unsettled = method.estimate(*shapes, params, CPU, 2)
    assert started.estimate["uncertainty_seconds"] < unsettled["uncertainty_seconds"]
    assert finished.record["parameters"]["d"] is None


def test_samples_are_counted_in_the_economy_that_is_taken(free: dict[str, float | None]) -> None:
    """Where they alone are too much, the next rung is taken, and its samples are announced."""
    free["cpu"] = 1e11

    def estimate(*arguments: Any) -> dict[str, float]:
        return {"seconds": 1.0, "bytes": 1e12 / arguments[-1].parts ** 3}

    method = replace(
        get_method("subspace"),
        sampling_estimator=estimate,
        economies=lambda _: [PLAIN, Economy(2), Economy(4)],
    )
    _, pair = observation()
    started, *_, finished = method.run(pair, method.presets["default"], samples=2)
    assert started.estimate["bytes"] == 1e12 / 4**3
    assert finished.record["fallback"]["training_parts"] == 4


def test_a_run_does_what_it_says_of_memory(
    free: dict[str, float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches go in the parts, and activations are worked out again, that the record names."""
    parts: list[int] = []
    again: list[torch.nn.Module] = []
    train, wrap = selflearning.train_noise_predictor, args_diff.recomputed

    def trained(*arguments: Any, **more: Any) -> Any:
        parts.append(more["parts"])
        return train(*arguments, **more)

    def wrapped(network: torch.nn.Module) -> torch.nn.Module:
        again.append(network)
        return wrap(network)

    monkeypatch.setattr(selflearning, "train_noise_predictor", trained)
    monkeypatch.setattr(args_diff, "recomputed", wrapped)
    params = ArgsDiffParams(**{**SMALL, "spatial_batch": 4})
    events(params)
    assert (parts, again) == ([1, 1], [])
    parts.clear()
    last = get_method("args-diff").economies(params)[-1]
    assert last == Economy(4, recompute=True)
    _, pair = observation(4)
    free["cpu"] = args_diff_cost(pair.x.shape, pair.y.shape, params, economy=last)["bytes"]
    done = fallback(events(params))  # with the margin it is too little for any but the last
    assert (done["training_parts"], done["recomputed"]) == (4, True)
    assert parts == [4, 1]  # the spectral network's batches are small
    assert len(again) == 1


@pytest.mark.parametrize(
    ("device", "free", "taken"),
    [
        ("cpu", 125.0, (0, None)),
        ("cpu", None, (0, None)),
        ("cpu", 119.0, (1, "estimate")),
        ("cpu", 30.0, (2, "estimate")),
    ],
)
def test_the_first_rung_that_fits(
    monkeypatch: pytest.MonkeyPatch, device: str, free: float | None, taken: tuple[int, Any]
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: free)
    monkeypatch.setattr(memory, "_swap", lambda: 0.0)
    steps = [Economy(1), Economy(2), Economy(4)]
    descent = Descent(ladder(torch.device(device), steps))
    descent.look()
    needs = iter((100.0, 50.0, 35.0))
    while not descent.settles(next(needs)):
        pass
    index, because = taken
    assert descent.rung.economy == steps[index]
    found = descent.record().get("fallback")
    assert (found and found["because"]) == because
    if because is not None:
        assert found["needed_bytes"] == 100
        assert found["free_bytes"] == free


def test_what_does_not_fit_in_any_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 50.0)
    monkeypatch.setattr(memory, "_swap", lambda: 5.0)
    descent = Descent(ladder(CPU, [Economy(1), Economy(2)]))
    descent.look()
    assert not descent.settles(100.0)
    with pytest.raises(TooLarge):  # 0.8 of it is more than memory and swap
        descent.settles(70.0)
    assert descent.over
    descent = Descent(ladder(CPU, [Economy(1)]))
    descent.look()
    assert descent.settles(68.0)


def test_a_graphics_card_tries_its_last_rung_and_then_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda d: 10.0 if d.type == "cuda" else 1e9)
    card = torch.device("cuda", 0)
    steps = [Economy(1), Economy(2)]
    assert ladder(card, steps, CPU) == [Rung(d, e) for d in (card, CPU) for e in steps]
    alone = Descent(ladder(card, steps))
    alone.look()
    assert not alone.settles(100.0)
    assert alone.settles(90.0)  # where it refuses, the run hears of it
    both = Descent(ladder(card, steps, CPU))
    both.look()
    assert not both.settles(100.0)
    with pytest.raises(TooLarge):
        both.settles(90.0)
    both.look()
    assert both.settles(100.0)
    assert both.record()["fallback"]["on"] == "cuda:0"
    assert both.record()["fallback"]["device"] == "cpu"
    assert "runs on cpu" in (both.notice() or "")


def test_after_a_failure_only_what_needs_less_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: None)
    descent = Descent(ladder(CPU, [Economy(1), Economy(2), Economy(4), Economy(8)]))
    descent.look()
    assert descent.settles(100.0)
    descent.fail()
    descent.look()
    assert not descent.settles(100.0)
    assert descent.settles(60.0)
    assert descent.record()["fallback"]["because"] == "allocation"
    assert descent.rung.economy.parts == 4


def failing(original: Any, times: int, error: Exception) -> Any:
    """The function, of which the first calls find no memory."""
    left = [times]

    def call(*args: Any, **more: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise error
        return original(*args, **more)

    return call


def test_a_failed_allocation_starts_anew_with_less(monkeypatch: pytest.MonkeyPatch) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    params = ArgsDiffParams(**SMALL)
    plain = events(params)
    monkeypatch.setattr(
        "napari_hsfusion.engine.methods.args_diff.sample_published",
        failing(args_diff.sample_published, 1, error),
    )
    found = events(params)
    starts = [k for k, event in enumerate(found) if isinstance(event, Started)]
    assert len(starts) == 2
    assert isinstance(found[starts[1] + 1], Notice)
    assert fallback(found)["because"] == "allocation"
    assert fallback(found)["training_parts"] == 2
    np.testing.assert_allclose(cube(found), cube(plain), rtol=0, atol=1e-9)


def test_where_nothing_helps_the_error_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full = failing(None, 99, torch.OutOfMemoryError("CUDA out of memory."))
    monkeypatch.setattr("napari_hsfusion.engine.selflearning.train_noise_predictor", full)
    folder = tmp_path / "networks"
    with pytest.raises(DeviceError, match=r"not enough memory.* needed.* free.*[Cc]rop"):
        events(ArgsDiffParams(**SMALL), seed=11, networks=folder)
    assert not folder.exists()


def test_other_errors_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = failing(None, 1, RuntimeError("size mismatch"))
    monkeypatch.setattr("napari_hsfusion.engine.selflearning.train_noise_predictor", wrong)
    with pytest.raises(RuntimeError, match="size mismatch"):
        events(ArgsDiffParams(**SMALL), seed=11)
    assert not ran_out(ValueError("out of memory"))
    assert ran_out(MemoryError("Unable to allocate 1. GiB for an array"))
    assert ran_out(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert ran_out(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))


def test_emr_diff_takes_smaller_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"train_on": "pair", "start": "bicubic", "steps": 2, "width": 4}
    params = EmrDiffParams(**settings, T=2, patch=8, batch=1, architecture="unet")
    plain = events(params, "emr-diff", ratio=2)
    failed = failing(emr_diff.make_consistent, 1, MemoryError())
    monkeypatch.setattr("napari_hsfusion.engine.methods.emr_diff.make_consistent", failed)
    found = events(params, "emr-diff", ratio=2)
    assert fallback(found)["tile"] == 32
    np.testing.assert_allclose(cube(found), cube(plain), rtol=0, atol=1e-9)
    told = replace(params, tile=16)
    assert [e.tile for e in get_method("emr-diff").economies(told)] == [None]


def test_recomputed_blocks_keep_less_and_give_the_same_gradient() -> None:
    net = spatial_network(ArgsDiffParams(**SMALL))
    initialise(net, torch.Generator().manual_seed(0))
    net.eval().requires_grad_(False)
    twin = recomputed(net)
    image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))

    def gradient(network: torch.nn.Module) -> tuple[torch.Tensor, int]:
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        state = image.clone().requires_grad_(True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = network(state, torch.tensor([7])).square().sum()
        return torch.autograd.grad(out, state)[0], sum(kept.values())

    (plain, much), (again, little) = gradient(net), gradient(twin)
    assert torch.equal(plain, again)
    assert little < 0.6 * much
    assert not any("forward" in vars(m) for m in net.modules() if isinstance(m, ResidualBlock))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_limits_of_control_groups(tmp_path: Path) -> None:
    two = tmp_path / "two"
    write(tmp_path / "membership", "0::/user/job\n")
    write(two / "user" / "job" / "memory.max", "max\n")
    write(two / "user" / "job" / "memory.current", "70\n")
    write(two / "user" / "memory.max", "1000\n")
    write(two / "user" / "memory.current", "600\n")
    write(two / "user" / "memory.stat", "anon 400\ninactive_file 150\n")
    assert list(memory._group_room(tmp_path / "membership", two)) == [550.0]
    one = tmp_path / "one"
    write(tmp_path / "old", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n")
    write(one / "memory" / "memory.limit_in_bytes", "500\n")
    write(one / "memory" / "memory.usage_in_bytes", "300\n")
    write(one / "memory" / "memory.stat", "total_inactive_file 20\n")
    assert list(memory._group_room(tmp_path / "old", one)) == [220.0]
    assert list(memory._group_room(tmp_path / "none", one)) == []


def test_the_host_says_what_is_free(tmp_path: Path) -> None:
    write(tmp_path / "meminfo", "MemTotal:  900 kB\nMemAvailable:   700 kB\n")
    assert memory._meminfo("MemAvailable", tmp_path / "meminfo") == 700 * 1024
    assert memory._meminfo("SwapFree", tmp_path / "meminfo") is None
    free = memory.free_bytes(CPU)
    assert free is None or free > 1e6
