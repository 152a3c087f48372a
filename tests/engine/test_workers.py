"""Tasks at work side by side: their order, threads and ends, and that results stay the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from small_pairs import CPU, observation, problem

from napari_hsfusion.engine import denoise, memory, posterior, regression, subspace
from napari_hsfusion.engine.cost import args_diff_cost
from napari_hsfusion.engine.device import limited_threads
from napari_hsfusion.engine.events import CancelToken, Finished, Notice, Preview
from napari_hsfusion.engine.memory import PLAIN, Economy
from napari_hsfusion.engine.methods import get_method
from napari_hsfusion.engine.spread import drained
from napari_hsfusion.engine.workers import ALONE, Crew, workers
from napari_hsfusion.errors import Cancelled
from napari_hsfusion.params import ARGS_DIFF_PRESETS

OWN = 3  # torch's own setting here, which is no number of threads that a crew would choose
LONG = 10.0  # seconds after which what is waited for does not come
SOON = 0.03  # seconds in which who does not wait would be far ahead
FEW = replace(ARGS_DIFF_PRESETS["fast"], d=3, classes=2, partitions=4, regressions=4)
ARGS_DIFF = get_method("args-diff")


@pytest.fixture(autouse=True)
def _own_setting() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(OWN)
    yield
    torch.set_num_threads(before)


def new_thread() -> int:
    """Torch's CPU threads in a thread that starts now."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def at_work() -> list[str]:
    """Threads of a crew that are there."""
    return [t.name for t in threading.enumerate() if t.name.startswith("worker_")]


def test_results_keep_the_order_of_the_tasks() -> None:
    """Each task ends after the next one."""
    ended: list[int] = []
    over = [threading.Event() for _ in range(5)]
    over[-1].set()

    def task(index: int) -> int:
        assert over[index + 1].wait(LONG)
        ended.append(index)
        over[index].set()
        return index

    assert list(Crew(4).in_order([partial(task, k) for k in range(4)], 4)) == [0, 1, 2, 3]
    assert ended == [3, 2, 1, 0]


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_so_many_are_at_work_and_one_more_is_taken(cores: int) -> None:
    """A task ends only when as many as there are cores have begun."""
    together, lock = threading.Barrier(cores), threading.Lock()
    busy, most, takers = 0, 0, []

    def task() -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        together.wait(LONG)
        time.sleep(SOON)  # in which the one that is taken ahead would begin
        with lock:
            busy -= 1

    def tasks() -> Iterator[Callable[[], None]]:
        for _ in range(6):
            takers.append(threading.current_thread())
            yield task

    run = Crew(cores).in_order(tasks(), 6)
    assert not takers
    for given, _ in enumerate(run):
        assert len(takers) - given <= (1 if cores == 1 else cores + 1)
    assert most == cores
    assert takers == [threading.current_thread()] * 6


@pytest.mark.parametrize("ends", ["failed", "closed"])
def test_an_end_waits_for_what_has_begun_and_drops_the_rest(ends: str) -> None:
    """Of ten tasks two are at work; none begins after a failure, one at most before a close."""
    begun: set[int] = set()
    started, ending, over = threading.Event(), threading.Event(), threading.Event()

    def task(index: int) -> None:
        begun.add(index)
        if index == 0:
            assert started.wait(LONG)
            if ends == "failed":
                ending.set()
                raise ValueError("it is broken")
        if index == 1:  # at work beside it
            started.set()
            assert ending.wait(LONG)
            time.sleep(SOON)
            over.set()

    run: Any = Crew(2).in_order((partial(task, k) for k in range(10)), 10)
    with pytest.raises(ValueError, match="broken") if ends == "failed" else nullcontext():
        next(run)
    ending.set()
    run.close()
    assert over.is_set()
    assert begun == {0, 1} if ends == "failed" else begun <= {0, 1, 2}
    assert not at_work()


@pytest.mark.parametrize("ends", ["itself", "failed", "closed"])
@pytest.mark.parametrize("crew", [Crew(1, 1), Crew(2, 1), Crew(2), Crew(4, 2)])
def test_the_setting_of_torch_is_what_it_was(crew: Crew, ends: str) -> None:
    """In the caller between any two results, and in threads that start later."""

    def task(index: int) -> int:
        return 1 // (4 - index if ends == "failed" else 1)

    run: Any = crew.in_order([partial(task, k) for k in range(6)], 6)
    with pytest.raises(ZeroDivisionError) if ends == "failed" else nullcontext():
        for _ in run:
            assert torch.get_num_threads() == OWN
            if ends == "closed":
                run.close()
    assert torch.get_num_threads() == OWN
    assert new_thread() == OWN


def test_threads_of_a_task() -> None:
    """Those that are asked for, else the cores' share; a single worker has torch's own setting."""
    asked = [(Crew(4, 1), 4, 1), (Crew(2, 2), 5, 2), (Crew(1, 1), 3, 1), (Crew(4, 2), 1, 2)]
    shared = [(Crew(4), 2, 2), (Crew(4), 3, 1), (Crew(2), 5, 1), (Crew(4), 1, OWN), (ALONE, 3, OWN)]
    for crew, count, each in asked + shared:
        assert list(crew.in_order([torch.get_num_threads] * count, count)) == [each] * count


def test_threads_of_a_task_stay_when_the_caller_changes_its_own() -> None:
    """A thread's own number begins with its first use of torch: until then it is the last set."""
    begun, told = threading.Event(), threading.Event()

    def task() -> int:
        begun.set()
        assert told.wait(LONG)
        return torch.get_num_threads()

    run = Crew(2, 1).in_order([lambda: begun.wait(LONG), task, task], 3)
    assert next(run)
    with limited_threads(2):
        pass
    told.set()
    assert list(run) == [1, 1]


def test_the_crew_of_an_image() -> None:
    card = torch.device("cuda")
    assert (workers(CPU), workers(card)) == (OWN, 1)
    assert Crew.of(CPU, 10) == Crew(OWN, 1)
    assert Crew.of(CPU, 10**6) == Crew(OWN, None)
    assert Crew.of(CPU, 10, alone=True) == Crew(1, 1)
    assert (Crew.of(CPU, 10**6, alone=True).cores, Crew.of(card, 10**6).cores) == (1, 1)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """How many tasks at a time the crews of a test have at work."""
    found: set[int] = set()
    in_order = Crew.in_order

    def spied(crew: Crew, tasks: Any, count: int) -> Iterator[Any]:
        found.add(min(crew.cores, count))
        return in_order(crew, tasks, count)

    monkeypatch.setattr(Crew, "in_order", spied)
    return found


def _average_map(crew: Crew) -> list[torch.Tensor]:
    p = problem()
    mean, systems = subspace.average_map(p, subspace.spectral_basis(p, 3), 4, 4, 0, crew=crew)
    return [mean, *(system.rhs for system in systems)]


def _regressions(crew: Crew) -> list[torch.Tensor]:
    p = problem()
    return list(regression.regressions(p, subspace.spectral_basis(p, 3), 4, 0, crew=crew))


def _nonlocal_bayes(crew: Crew) -> list[torch.Tensor]:
    assert denoise.patch_strips(200, 24) == 4
    image = torch.rand(2, 200, 24, generator=torch.Generator().manual_seed(0))
    return [denoise.nonlocal_bayes(image, 0.1, crew=crew)]


def _deviation(crew: Crew) -> list[torch.Tensor]:
    """Of the crew that torch's setting gives; chunks of pixels are a crew's work, too."""
    p = problem(noise=0.01)
    basis = subspace.spectral_basis(p, 3)
    mean, systems = subspace.average_map(p, basis, 2, 1, 0)
    torch.set_num_threads(crew.cores)
    generator = torch.Generator().manual_seed(0)
    found = posterior.Posterior(p, basis, systems, mean).deviation(6, generator, CancelToken())
    return [drained(found).covariance, torch.rand(1, generator=generator)]


def _run(crew: Crew) -> list[torch.Tensor]:
    """The factors of a whole run; the cube is composed with all of torch's threads."""
    torch.set_num_threads(crew.cores)
    seen = ARGS_DIFF.run(observation()[1], FEW)
    (preview,) = (event for event in seen if isinstance(event, Preview))
    return [preview.coefficients, preview.basis]


@pytest.mark.parametrize("work", [_average_map, _regressions, _nonlocal_bayes, _deviation, _run])
def test_the_same_bits_however_many_are_at_work(
    work: Callable[[Crew], list[torch.Tensor]], asked: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posterior, "_PIXELS", 50)
    found = {}
    for cores in (1, 2, 4):
        asked.clear()
        found[cores] = work(Crew(cores, 1))
        assert max(asked) == cores
    for cores in (2, 4):
        assert all(torch.equal(a, b) for a, b in zip(found[1], found[cores], strict=True))


def _fused(cancel: CancelToken) -> None:
    list(ARGS_DIFF.run(observation()[1], FEW, cancel=cancel))


def _denoised(cancel: CancelToken) -> None:
    denoise.nonlocal_bayes(torch.rand(2, 200, 24), 0.1, cancel=cancel, crew=Crew(OWN, 1))


@pytest.mark.parametrize("name", ["_alike", "choose_prior", "regress"])
def test_cancelled_while_several_are_at_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From within a task: no other begins, and neither a thread is left nor a setting."""
    module = {"_alike": denoise, "choose_prior": subspace, "regress": regression}[name]
    token, calls, original = CancelToken(), [], getattr(module, name)

    def cancelling(*arguments: Any) -> Any:
        calls.append(at_work())
        token.cancel()
        return original(*arguments)

    monkeypatch.setattr(module, name, cancelling)
    with pytest.raises(Cancelled):
        (_denoised if module is denoise else _fused)(token)
    assert len(calls) <= OWN
    assert all(calls)
    assert not at_work()
    assert torch.get_num_threads() == new_thread() == OWN


def test_one_after_the_other_where_memory_is_short(
    monkeypatch: pytest.MonkeyPatch, asked: set[int]
) -> None:
    """A way to run in less with several threads, and no such way with one."""
    torch.set_num_threads(1)
    assert list(ARGS_DIFF.economies(FEW)) == [PLAIN]
    torch.set_num_threads(2)
    assert list(ARGS_DIFF.economies(FEW)) == [PLAIN, Economy(alone=True)]
    large = (103, 64, 64), (4, 256, 256), FEW
    both = [args_diff_cost(*large, economy=e)["bytes"] for e in ARGS_DIFF.economies(FEW)]
    assert both[1] < 0.8 * both[0]
    estimate = ARGS_DIFF.sampling_estimator
    assert estimate is not None
    several, few, one = (
        estimate(*large, CPU, samples, economy)["bytes"]
        for samples, economy in ((8, PLAIN), (FEW.partitions, PLAIN), (8, Economy(alone=True)))
    )
    assert one == few < several  # a partition's samples at a time
    # a card has no cores: nothing would be less
    assert memory.ladder(torch.device("cuda"), ARGS_DIFF.economies(FEW)) == [
        memory.Rung(torch.device("cuda"))
    ]
    needed = ARGS_DIFF.estimate((9, 4, 6), (3, 16, 24), FEW, CPU, 4)["bytes"]
    monkeypatch.setattr(memory, "_swap", lambda: 0.0)
    runs = []
    for free, cores in ((1e12, 2), (needed, 1)):
        monkeypatch.setattr(memory, "free_bytes", lambda _, free=free: free)
        asked.clear()
        runs.append(list(ARGS_DIFF.run(observation()[1], FEW, samples=4)))
        assert max(asked) == cores
    (*_, plain), (_, notice, *_, alone) = runs
    assert isinstance(notice, Notice)
    assert "partitions and regressions follow one another" in notice.text
    assert isinstance(plain, Finished)
    assert isinstance(alone, Finished)
    assert alone.record["fallback"]["alone"] is True
    np.testing.assert_array_equal(alone.cube, plain.cube)
    np.testing.assert_array_equal(alone.deviation, plain.deviation)
