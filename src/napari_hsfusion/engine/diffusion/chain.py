"""Steps of a sampler in a row, on a graphics card as one CUDA graph that is replayed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ..device import sent
from .steps import StepScalars

Replay = Callable[[], object]

_WARM = 2
"""Steps that are taken plainly before a capture, and compared with as many replays."""

_SHORT = 4 * _WARM
"""Steps of a chain up to which a capture is not worth its warm-up and its comparison."""

_AGREEMENT = 1e-3
"""Largest difference of a replay, in the Euclidean norm; kernels that add up in no fixed
order differ by some 1e-6, a graph that reads a wrong place by about 1."""


class Sampler(Protocol):
    """What a chain asks of a sampler; see :class:`~.published.PublishedSampler`."""

    def row(self, time: int, following: int, count: int) -> tuple[float, ...]:
        """Values of :class:`~.steps.StepScalars`."""

    def moved(self, now: StepScalars, moment: Tensor) -> tuple[Tensor, ...]:
        """State after one step, and the loss."""

    def hold(self) -> list[Tensor]:
        """Tensors of the state."""


class StaticStep:
    """One step over tensors that stay where they are.

    What changes from step to step is read from a table by a counter on the device: a
    call depends on nothing on the host, so that a graph of it may be replayed.

    Parameters
    ----------
    sampler : Sampler
    times : sequence of (int, int)
        This time and the following one, of every step.
    """

    def __init__(self, sampler: Sampler, times: Sequence[tuple[int, int]]) -> None:
        self._sampler = sampler
        self._state = sampler.hold()
        like = self._state[0]
        rows = [sampler.row(*pair, count) for count, pair in enumerate(times, start=1)]
        self._table = sent(torch.tensor(rows, dtype=like.dtype), like.device)
        self._times = sent(torch.tensor([now for now, _ in times]), like.device)
        self._index = torch.zeros(1, dtype=torch.long, device=like.device)
        self.loss = torch.zeros((), dtype=like.dtype, device=like.device)

    def __call__(self) -> None:
        """Take the next step."""
        row = self._table.index_select(0, self._index)[0]
        moment = self._times.index_select(0, self._index)
        *moved, loss = self._sampler.moved(StepScalars(*row.unbind()), moment)
        for held, fresh in zip(self._state, moved, strict=False):  # moments are changed in place
            held.copy_(fresh)
        self.loss.copy_(loss)
        self._index.add_(1)

    def copy(self) -> list[Tensor]:
        """Everything that a step changes, as copies."""
        return [held.clone() for held in self._changed()]

    def restore(self, values: Sequence[Tensor]) -> None:
        """Put copies back."""
        for held, value in zip(self._changed(), values, strict=True):
            held.copy_(value)

    def _changed(self) -> list[Tensor]:
        return [*self._state, self.loss, self._index]


class Recorder:
    """What takes a step down as a CUDA graph.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._side = torch.cuda.Stream(device)

    def warm(self, step: StaticStep) -> list[Tensor]:
        """Take steps on a side stream, and give what they change.

        Whatever a first call prepares is prepared then, and not within the graph.
        """
        main = torch.cuda.current_stream(self._device)
        self._side.wait_stream(main)
        with torch.cuda.stream(self._side):
            for _ in range(_WARM):
                step()
            found = step.copy()
        main.wait_stream(self._side)
        return found

    def record(self, step: StaticStep) -> Replay:
        """Take a step down, which is not done by that, in a memory pool of its own."""
        graph = torch.cuda.CUDAGraph()
        # the outer block sets the stream back even where the end of a capture fails; other
        # threads, such as a window's, may go on using the card
        with (
            torch.cuda.device(self._device),
            torch.cuda.stream(self._side),
            torch.cuda.graph(graph, stream=self._side, capture_error_mode="thread_local"),
        ):
            step()
        return graph.replay


class Chain:
    """A sampler's steps, one after the other.

    Parameters
    ----------
    sampler : Sampler
        Its state is changed in place where a graph is replayed.
    times : sequence of (int, int)
        This time and the following one, of every step.
    graphs : {"auto", "off"}
        Whether a graph is tried where the device is a graphics card.
    recorder : Recorder, optional
        The card's by default.

    Attributes
    ----------
    record : dict
        JSON-able: on a GPU ``cuda_graph``, with ``cuda_graph_reason`` where it is false.
    """

    def __init__(
        self,
        sampler: Sampler,
        times: Sequence[tuple[int, int]],
        graphs: str = "auto",
        recorder: Recorder | None = None,
    ) -> None:
        self._step = StaticStep(sampler, times)
        self._run: Replay = self._step
        self.record: dict[str, Any] = {}
        device = self._step.loss.device
        if recorder is None and device.type != "cuda":
            return
        reason = ""
        if graphs == "off":
            reason = "graphs are off"
        elif len(times) <= _SHORT:
            reason = f"not worth it for {len(times)} steps"
        else:
            reason = self._capture(recorder or Recorder(device))
        self.record = {"cuda_graph": not reason}
        if reason:
            self.record["cuda_graph_reason"] = reason

    def advance(self) -> Tensor:
        """Take the next step; its loss comes back, which the step after overwrites."""
        self._run()
        return self._step.loss

    def _capture(self, recorder: Recorder) -> str:
        """Replay a graph from here on, if there can be one; else why not."""
        step = self._step
        before = step.copy()
        try:
            wanted = recorder.warm(step)
            step.restore(before)
            replay = recorder.record(step)
            for _ in range(_WARM):
                replay()
            apart = _difference(step.copy(), wanted)
            if not apart <= _AGREEMENT:
                return f"its steps differ from the plain ones by {apart:.1e}"
        except RuntimeError as error:  # torch's own, of anything that cannot be captured
            first = error.__context__ or error  # the end of a capture that failed fails too
            return f"the capture failed: {(str(first).strip() or repr(first)).splitlines()[0]}"
        finally:
            step.restore(before)
        self._run = replay
        return ""


def _difference(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Largest difference relative to what is wanted, in the Euclidean norm; waits for a GPU."""
    apart = []
    for one, other in zip(found, wanted, strict=True):
        scale = float(torch.linalg.vector_norm(other.double())) or 1.0
        apart.append(float(torch.linalg.vector_norm((one - other).double())) / scale)
    return math.inf if any(map(math.isnan, apart)) else max(apart)
