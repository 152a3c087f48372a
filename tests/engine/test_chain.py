"""A step that a CUDA graph can hold: the same on every device, whatever is replayed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from small_pairs import observation
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from napari_hsfusion.engine.diffusion.chain import Chain, Recorder, StaticStep
from napari_hsfusion.engine.diffusion.published import PublishedSampler, sample_published
from napari_hsfusion.engine.diffusion.schedules import sampling_times
from napari_hsfusion.engine.events import CancelToken, Preview, Step
from napari_hsfusion.engine.nets.initialise import initialise
from napari_hsfusion.engine.nets.spectral_mlp import SpectralMLP
from napari_hsfusion.engine.nets.unet import SpatialUNet
from napari_hsfusion.params import ArgsDiffParams

D, BANDS, T = 3, 9, 10
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
CASES: dict[str, dict[str, Any]] = {
    "published": {},
    "gradient at x0": {"gradient": "x0"},
    "noise form without the residual module": {"guidance": "noise", "argm": False},
}


class _Again(Recorder):
    """A recorder for devices without graphs: its replay calls the step again."""

    def __init__(self) -> None:
        self.recorded = 0

    def warm(self, step: StaticStep) -> list[Tensor]:
        step()
        step()
        return step.copy()

    def record(self, step: StaticStep) -> Callable[[], object]:
        self.recorded += 1
        return step


def _networks() -> list[nn.Module]:
    generator = torch.Generator().manual_seed(5)
    nets = [
        initialise(SpatialUNet(D, 8, (1, 2), 1), generator).double(),
        initialise(SpectralMLP(BANDS, (16, 32, 16), 8, 1000), generator).double(),
    ]
    for net in nets:
        for weight in net.requires_grad_(False).eval().parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
    return nets


def _sampler(
    device: str, dtype: torch.dtype = torch.float64, **changes: Any
) -> tuple[PublishedSampler, list[tuple[int, int]]]:
    place = torch.device(device, 0) if device == "cuda" else torch.device(device)
    pair = observation()[1].prepare(place, dtype)
    nets = [net.to(place, dtype) for net in _networks()]
    generator = torch.Generator().manual_seed(11)
    a = torch.randn((D, 16, 24), generator=generator, dtype=torch.float64).to(place, dtype)
    e = torch.randn((D, BANDS), generator=generator, dtype=torch.float64).to(place, dtype)
    params = replace(ArgsDiffParams(d=D, T=T), **changes)
    times = [(int(now), int(later)) for now, later in pairwise(sampling_times(params.T))]
    return PublishedSampler(pair, *nets, params, a, e), times


def _states(sampler: PublishedSampler, advance: Callable[[int], Tensor], count: int) -> np.ndarray:
    """Samples, predictions and losses after every step, one row a step."""
    rows = []
    for k in range(count):
        loss = advance(k)
        parts = (sampler.a, sampler.e, sampler.a_clean, sampler.e_clean, loss)
        rows.append(torch.cat([part.flatten() for part in parts]).cpu().numpy())
    return np.stack(rows)


def _plain(device: str, dtype: torch.dtype = torch.float64, **changes: Any) -> np.ndarray:
    sampler, times = _sampler(device, dtype, **changes)
    return _states(sampler, lambda k: sampler.step(*times[k]), len(times))


def _chained(
    device: str,
    recorder: Recorder | None = None,
    dtype: torch.dtype = torch.float64,
    **changes: Any,
) -> tuple[np.ndarray, dict[str, Any]]:
    sampler, times = _sampler(device, dtype, **changes)
    chain = Chain(sampler, times, sampler.params.graphs, recorder)
    return _states(sampler, lambda _: chain.advance(), len(times)), chain.record


@functools.cache
def _launched(device: str, case: str) -> np.ndarray:
    """The chain without graphs."""
    return _chained(device, graphs="off", **CASES[case])[0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_a_chain_is_its_steps_one_by_one(case: str, device: str) -> None:
    """The table's scalars and the counter on the device, against steps at given times."""
    expected = _plain(device, **CASES[case])
    np.testing.assert_allclose(_launched(device, case), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_replays_are_the_same_steps(case: str, device: str) -> None:
    """From the first step on, after the warm-up and the comparison, which leave no trace."""
    recorder = _Again() if device == "cpu" else None
    found, record = _chained(device, recorder, **CASES[case])
    assert record == {"cuda_graph": True}
    assert recorder is None or recorder.recorded == 1
    np.testing.assert_allclose(found, _launched(device, case), rtol=1e-7, atol=1e-8)
    assert np.abs(np.diff(found, axis=0)).max(1).min() > 1e-6  # every replay went on


@pytest.mark.gpu
@pytest.mark.parametrize("gradient", ["x0", "network"])
def test_replays_agree_in_float32(gradient: str) -> None:
    """To 1e-6 of the predictions' range at every step, or bits: the same kernels run."""
    found, record = _chained("cuda", dtype=torch.float32, gradient=gradient, precision="float32")
    expected, _ = _chained(
        "cuda", dtype=torch.float32, gradient=gradient, precision="float32", graphs="off"
    )
    assert record == {"cuda_graph": True}
    # where a gradient is zero to rounding, Adam's direction has either sign
    apart = np.abs(found - expected)
    assert np.median(apart) <= 1e-6
    assert np.quantile(apart, 0.99, axis=1).max() <= 1e-4


class _Stale(_Again):
    """A graph that has taken the first step's scalars in: it repeats that step."""

    def record(self, step: StaticStep) -> Callable[[], object]:
        def replay() -> None:
            step._index.zero_()
            step()

        return replay


class _Refused(_Again):
    """Fails half-way, as something does that cannot be captured."""

    def record(self, step: StaticStep) -> Callable[[], object]:
        step()
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nsecond line")
        finally:
            raise RuntimeError("the capture was invalidated")


@pytest.mark.parametrize(
    ("recorder", "reason"),
    [(_Stale, "its steps differ from the plain ones by"), (_Refused, "operation not permitted")],
)
def test_a_graph_that_is_wrong_is_not_used(recorder: type[_Again], reason: str) -> None:
    """The record says why, and the steps are the plain ones from the first on."""
    found, record = _chained("cpu", recorder())
    assert record["cuda_graph"] is False
    assert reason in record["cuda_graph_reason"]
    assert "second line" not in record["cuda_graph_reason"]
    np.testing.assert_array_equal(found, _launched("cpu", "published"))


def test_where_no_graph_is_tried() -> None:
    for changes, reason in (({"graphs": "off"}, "graphs are off"), ({"T": 8}, "for 8 steps")):
        recorder = _Again()
        _, record = _chained("cpu", recorder, **changes)
        assert record["cuda_graph"] is False
        assert reason in record["cuda_graph_reason"]
        assert recorder.recorded == 0
    assert _chained("cpu")[1] == {}  # a CPU has none to speak of


class _Calls(TorchDispatchMode):
    """Every call, with all of its arguments that are no tensors, and the tensors' shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = tree_leaves((args, kwargs))
        self.calls.append(
            (func, *(tuple(x.shape) if isinstance(x, Tensor) else repr(x) for x in leaves))
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_no_step_depends_on_the_host(changes: dict[str, Any]) -> None:
    """The same calls with the same numbers at every step, none of which reads a tensor."""
    sampler, times = _sampler("cpu", **changes)
    step = StaticStep(sampler, times)
    step()
    traces = []
    for _ in range(3):
        with _Calls() as watch:
            step()
        traces.append(watch.calls)
    assert traces[0] == traces[1] == traces[2]
    assert len(traces[0]) > 50
    assert not [c for c in traces[0] if c[0] is torch.ops.aten._local_scalar_dense.default]


@contextmanager
def _no_waiting(device: str) -> Iterator[None]:
    """On a GPU torch itself fails on a wait; on the CPU a read of a value is one."""
    if device == "cpu":
        with _Calls() as watch:
            yield
        assert torch.ops.aten._local_scalar_dense.default not in [c[0] for c in watch.calls]
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("graphs", ["auto", "off"])
def test_nothing_waits_between_two_looks(graphs: str, device: str) -> None:
    """Steps and previews; on the CPU, where a loss is read at every step, the steps alone."""
    sampler, times = _sampler(device, torch.float32, graphs=graphs)
    chain = Chain(sampler, times, graphs, _Again() if device == "cpu" else None)
    chain.advance()
    with _no_waiting(device):
        for _ in range(5):
            chain.advance()
    if device == "cpu":
        return
    nets = sampler.spatial, sampler.spectral
    run = sample_published(
        sampler.problem, *nets, sampler.params, torch.Generator().manual_seed(0), CancelToken()
    )
    for _ in range(2):
        next(run)
    with _no_waiting(device):
        events = [next(run) for _ in range(8)]
    assert [e.loss for e in events if isinstance(e, Step)] == [None] * 4
    run.close()


@pytest.mark.parametrize("device", DEVICES)
def test_previews_stay_as_they_were(device: str) -> None:
    """Copies: later steps overwrite the state, not what was shown; bands come from any stream."""
    sampler, _ = _sampler(device, torch.float32)
    nets = sampler.spatial, sampler.spectral
    runs = []
    for late in (False, True):
        generator = torch.Generator().manual_seed(0)
        run = sample_published(sampler.problem, *nets, sampler.params, generator, CancelToken())
        if late:  # all are looked at in the end
            kept = [event for event in run if isinstance(event, Preview)]
            runs.append(np.stack([preview.bands([0, 4]) for preview in kept]))
        else:
            runs.append(
                np.stack([event.bands([0, 4]) for event in run if isinstance(event, Preview)])
            )
    assert len(runs[0]) == T
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-5, atol=1e-5)
    assert np.abs(np.diff(runs[0], axis=0)).max((1, 2, 3)).min() > 1e-6
