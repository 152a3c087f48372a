"""What a fusion method is, and what every method's run has in common."""

from __future__ import annotations

import platform
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from ... import __version__
from ...errors import DeviceError, ParameterError
from ...params import Params
from ..device import describe_device, release, trim
from ..events import CancelToken, Event, Finished, Notice, Started
from ..memory import PLAIN, Descent, Economy, TooLarge, ladder, ran_out
from ..observation import Observation, Problem
from ..spread import STAGE, Sampling, compose_deviation

P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class Context:
    """Everything a run gets besides the pair and the parameters."""

    seed: int
    device: torch.device
    dtype: torch.dtype
    networks: Path | None
    cancel: CancelToken
    samples: int = 0
    economy: Economy = PLAIN


@dataclass(frozen=True)
class Outcome:
    """What a method's own generator returns: the factors and its share of the record.

    `limits` clips the cube, in normalised values. Without a basis the coefficients are
    the bands of the cube themselves. `sampling` draws samples of the cube; it is called
    where the run was asked for some, after the cube is there.
    """

    coefficients: Tensor
    basis: Tensor | None
    record: Mapping[str, Any]
    limits: tuple[float, float] | None = None
    sampling: Sampling | None = None


Runner = Callable[[Problem, Any, Context], Generator[Event, None, Outcome]]
Shape = tuple[int, ...]
Estimator = Callable[[Shape, Shape, Any, torch.device], dict[str, float]]
Economies = Callable[[Any], Sequence[Economy]]
SamplingEstimator = Callable[[Shape, Shape, Any, torch.device, int, Economy], dict[str, float]]


Settled = Callable[[Problem, Any, torch.device], Any]


def _as_they_are(problem: Problem, params: P, device: torch.device) -> P:
    return params


def _plain_alone(params: Params) -> Sequence[Economy]:
    return (PLAIN,)


@dataclass(frozen=True)
class Method(Generic[P]):
    """A fusion method under its registered name.

    Attributes
    ----------
    name, title, description : str
    params : type
        Its parameter class.
    presets : mapping of str to Params
    default_preset : str
    trains : bool
        Whether runs train networks, which a folder can keep.
    sampling_estimator : callable or None
        What samples cost on top, of a method that can draw them.
    settled : callable
        Parameters of a run, with what a pair and a device leave open decided: those the
        runner and the estimators of a run are given. The record has them as they came.
    economies : callable
        Ways to run in less and less memory that some parameters leave, the plain one first.
        The runner goes by the context's, and says in its Started what it needs then.
    """

    name: str
    title: str
    description: str
    params: type[P]
    presets: Mapping[str, P]
    default_preset: str
    runner: Runner
    estimator: Estimator
    trains: bool = False
    sampling_estimator: SamplingEstimator | None = None
    economies: Economies = _plain_alone
    settled: Settled = _as_they_are

    def estimate(
        self, x_shape: Shape, y_shape: Shape, params: P, device: torch.device, samples: int = 0
    ) -> dict[str, float]:
        """Expected cost of a run on an LR-HSI (C, h, w) and an HR-MSI (c, H, W).

        ``seconds`` and ``bytes`` of working memory; training and samples are counted in.

        Raises
        ------
        ParameterError
            If the method has no samples to draw, or one sample is asked for.
        """
        cost = self.estimator(x_shape, y_shape, params, device)
        return self._with_samples(cost, x_shape, y_shape, params, device, samples)

    def _with_samples(
        self,
        cost: Mapping[str, float],
        x_shape: Shape,
        y_shape: Shape,
        params: P,
        device: torch.device,
        samples: int,
        economy: Economy = PLAIN,
    ) -> dict[str, float]:
        self.check_samples(samples)
        if self.sampling_estimator is None or not samples or not cost:
            return dict(cost)
        more = self.sampling_estimator(x_shape, y_shape, params, device, samples, economy)
        return {
            **cost,
            "seconds": cost["seconds"] + more["seconds"],
            "bytes": max(cost["bytes"], more["bytes"]),
            "uncertainty_seconds": more["seconds"],
        }

    def check_samples(self, samples: int) -> None:
        """Make sure that so many samples can be drawn.

        Raises
        ------
        ParameterError
            If not.
        """
        if samples == 1 or samples < 0:
            raise ParameterError(f"samples: expected 0, or 2 and more, got {samples}")
        if samples and self.sampling_estimator is None:
            raise ParameterError(
                f"samples: method {self.name!r} has no uncertainty to sample: it neither draws "
                f"noise nor has a posterior; expected 0, got {samples}"
            )

    def run(
        self,
        observation: Observation,
        params: P,
        *,
        seed: int = 0,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        networks: Path | None = None,
        cancel: CancelToken | None = None,
        samples: int = 0,
        spare: torch.device | None = None,
    ) -> Generator[Event, None, None]:
        """Fuse a pair, yielding events; the last is :class:`~.events.Finished`.

        Where the memory that is free does not suffice, or an allocation fails, the run goes
        by the next of the method's economies, from the start and from the same seed: a
        :class:`~.events.Notice` and the record's ``fallback`` say so.

        Parameters
        ----------
        observation : Observation
        params : Params
            Of this method's class.
        seed : int
            The same seed gives the same cube, bit for bit on the CPU.
        device : torch.device, optional
            The CPU by default.
        dtype : torch.dtype
            float32, or float64 for checks.
        networks : Path, optional
            Folder to take trained networks from, or to keep them in.
        cancel : CancelToken, optional
        samples : int
            Samples to draw for the deviation of the cube, at least 2; 0 for none. The
            cube is the same with and without.
        spare : torch.device, optional
            Where to run if the memory of `device` suffices in no way.

        Raises
        ------
        Cancelled, ParameterError, PairError, WeightsError, DeviceError
        """
        if networks is not None and not self.trains:
            raise ParameterError(f"method {self.name!r} trains no networks: networks has no effect")
        self.check_samples(samples)
        device = device or torch.device("cpu")
        context = Context(seed, device, dtype, networks, cancel or CancelToken(), samples)
        empty = networks is not None and not networks.exists()
        descent = Descent(ladder(device, self.economies(params), spare))
        while not descent.over:
            context = replace(context, device=descent.rung.device)
            try:
                yield (yield from self._execute(observation, params, context, descent))
                return
            except TooLarge:
                pass
            except Exception as error:
                if not ran_out(error):
                    raise
                descent.fail()
            finally:
                release(context.device)
        if empty and networks is not None:
            with suppress(OSError):  # it holds networks now, or was never made
                networks.rmdir()
        raise DeviceError(descent.words())

    def _execute(
        self, observation: Observation, params: P, context: Context, descent: Descent
    ) -> Generator[Event, None, Finished]:
        """Run in a frame of its own, so that its tensors are gone when memory is released."""
        context.cancel.check()
        descent.look()
        problem = observation.prepare(context.device, context.dtype)
        outcome = yield from self._announced(problem, params, context, descent)
        if not context.samples:  # what samples need is not kept while the cube is composed
            outcome = replace(outcome, sampling=None)
        trim()  # what was freed in pieces would not hold the cube
        cube = compose(outcome, problem.scale)
        deviation, sampled = yield from _deviation(outcome, problem, context, cube)
        for image in (cube, deviation):
            if image is not None:
                image[:, ~observation.known()] = np.nan
        record = {
            "method": self.name,
            "parameters": params.to_record(),
            "seed": context.seed,
            "dtype": str(context.dtype).removeprefix("torch."),
            **describe_device(context.device),
            "versions": versions(),
            "scale": problem.scale,
            "noise_x": problem.sigma_x * problem.scale,
            "noise_y": problem.sigma_y * problem.scale,
            **outcome.record,
            **sampled,
            **descent.record(),
        }
        return Finished(cube, record, deviation)

    def _announced(
        self, problem: Problem, params: P, context: Context, descent: Descent
    ) -> Generator[Event, None, Outcome]:
        """The method's own run, announced with all its stages and what it is expected to cost.

        Until its first event a run only looks ahead: the economies are gone through by it.
        """
        shapes = problem.x.shape, problem.y.shape
        params = self.settled(problem, params, context.device)
        while True:
            context = replace(context, economy=descent.rung.economy)
            run = self.runner(problem, params, context)
            first = next(run)
            assert isinstance(first, Started)
            cost = first.estimate or self.estimator(*shapes, params, context.device)
            cost = self._with_samples(
                cost, *shapes, params, context.device, context.samples, context.economy
            )
            if descent.settles(cost.get("bytes", 0.0)):
                break
            run.close()
        stages = dict(first.stages)
        if context.samples:
            stages[STAGE] = context.samples
        yield replace(first, stages=stages, estimate=cost)
        notice = descent.notice()
        if notice is not None:
            yield Notice(notice)
        return (yield from run)


def _deviation(
    outcome: Outcome, problem: Problem, context: Context, cube: np.ndarray
) -> Generator[Event, None, tuple[np.ndarray | None, dict[str, Any]]]:
    """Deviation of the cube, in its units, and what the record says of it."""
    if outcome.sampling is None:
        return None, {}
    context.cancel.check()
    # a stream of its own: it moves no other
    generator = torch.Generator().manual_seed((context.seed + _STREAM) % 2**63)
    found = yield from outcome.sampling(context.samples, generator, context.cancel)
    deviation = compose_deviation(found, cube, problem.scale)
    return deviation, {"samples": context.samples, **found.record}


_STREAM = 0xDE71


def compose(outcome: Outcome, scale: float) -> np.ndarray:
    """The cube A x3 E in input units, float32 (or float64), shape (C, H, W), band by band."""
    first = outcome.coefficients
    basis = None if outcome.basis is None else (outcome.basis * scale).to(first.dtype)
    kind = np.float64 if first.dtype == torch.float64 else np.float32
    bands = len(first) if basis is None else basis.shape[1]
    cube = np.empty((bands, *first.shape[1:]), dtype=kind)
    for start in range(0, len(cube), 16):
        if basis is None:
            part = first[start : start + 16] * scale
        else:
            part = torch.tensordot(basis[:, start : start + 16].T, first, dims=1)
        if outcome.limits is not None:
            part = part.clamp(outcome.limits[0] * scale, outcome.limits[1] * scale)
        cube[start : start + 16] = part.detach().cpu().numpy()
    return cube


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {
        "napari-hsfusion": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
