"""Networks of ARGS-Diff for a study: how long they are trained, and where they are kept."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .._fuse import iter_fuse
from ..engine.checkpoint import has_networks
from ..engine.device import describe_device
from ..engine.events import CancelToken, Step
from ..engine.network_cache import forget_networks
from ..errors import WeightsError
from ..params import ArgsDiffParams
from .args_designs import PUBLISHED_STEPS
from .args_scenes import Subject
from .failures import FailedRun, noting_failures
from .record import write_text

if TYPE_CHECKING:
    from .options import Budget

SPATIAL, SPECTRAL = "train spatial network", "train spectral network"
"""Stages of the method."""

SPECTRAL_SHARE = PUBLISHED_STEPS[1] / PUBLISHED_STEPS[0]
"""Training steps of the spectral network for one of the spatial network, as published."""

_PLAN, _TRAINING = "plan.json", "training.json"
_MOST = 10_000_000  # of either network's steps, as the parameters have it
_PROBE_STEPS, _PROBE_SECONDS, _PROBE_SHARE = 50, 5.0, 0.05


@dataclass(frozen=True)
class Plan:
    """Training steps of every pair of networks of a scene.

    Attributes
    ----------
    spatial, spectral : int
    """

    spatial: int
    spectral: int

    def of(self, params: ArgsDiffParams) -> ArgsDiffParams:
        """Parameters with these steps."""
        return replace(params, spatial_steps=self.spatial, spectral_steps=self.spectral)


@dataclass(frozen=True)
class Trained:
    """A pair of networks.

    Attributes
    ----------
    folder : Path
        As :func:`~napari_hsfusion.api.fuse` takes it.
    seconds : float or None
        That the training took; None if nobody wrote it down.
    hardware : mapping or None
        What they were trained on.
    """

    folder: Path
    seconds: float | None
    hardware: Mapping[str, Any] | None


class NetworkStore:
    """Networks of a study, each pair trained once.

    Parameters
    ----------
    folder : Path
        A folder a scene, and in it one a number of dimensions.
    budget : Budget
        Of every pair of networks.
    seed : int
    device : torch.device
    cancel : CancelToken
    """

    def __init__(
        self, folder: Path, budget: Budget, seed: int, device: torch.device, cancel: CancelToken
    ) -> None:
        self.folder, self.budget, self.seed = folder, budget, seed
        self.device, self.cancel = device, cancel
        self._plans: dict[str, Plan] = {}
        self._failed: dict[Path, str] = {}

    def plan(self, subject: Subject, params: ArgsDiffParams, *, keep: bool = True) -> Plan:
        """Training steps for a scene: as given, or as many as fit in the time.

        Parameters
        ----------
        subject : Subject
        params : ArgsDiffParams
            Settings of all networks of the study.
        keep : bool
            Whether the folder is to hold the plan, and to be looked in.

        Raises
        ------
        WeightsError
            If the folder has networks of the scene for another budget.
        FailedRun
            If not even a trial of some steps can be done.
        """
        if subject.key in self._plans:
            return self._plans[subject.key]
        path = self.folder / subject.key / _PLAN
        asked = {"budget": {self.budget.unit: self.budget.amount}, "settings": _settings(params)}
        found = _read(path) if keep else None
        if found is not None:
            for key, value in asked.items():
                if found.get(key) != value:
                    raise WeightsError(
                        f"{path.parent}: the networks there are of {key} {found.get(key)}, this "
                        f"study's of {value}: give another folder for the networks"
                    )
            try:
                plan = Plan(int(found["spatial_steps"]), int(found["spectral_steps"]))
            except (KeyError, TypeError, ValueError) as error:
                raise WeightsError(f"{path}: not the plan of a training: {error}") from error
        else:
            plan = self._new_plan(subject, params)
            if keep:
                steps = {"spatial_steps": plan.spatial, "spectral_steps": plan.spectral}
                _write(path, {**asked, **steps})
        self._plans[subject.key] = plan
        return plan

    def obtain(self, subject: Subject, params: ArgsDiffParams) -> Generator[Step, None, Trained]:
        """Train the networks for a scene and as many dimensions as `params` has, or find them.

        Parameters
        ----------
        subject : Subject
        params : ArgsDiffParams
            With the steps of the plan.

        Returns
        -------
        Trained

        Yields
        ------
        Step

        Raises
        ------
        FailedRun
            If the training comes to nothing, now or before.
        WeightsError
            If the folder has other networks.
        """
        folder = self.folder / subject.key / f"d{params.dimensions}"
        if folder in self._failed:
            raise FailedRun(self._failed[folder])
        if not has_networks(folder):
            try:
                with noting_failures():
                    yield from self._train(subject, params, folder)
            except FailedRun as failure:
                self._failed[folder] = f"training: {failure}"
                raise FailedRun(self._failed[folder]) from failure
        found = _read(folder / _TRAINING) or {}
        return Trained(folder, found.get("seconds"), found.get("hardware"))

    def _train(
        self, subject: Subject, params: ArgsDiffParams, folder: Path
    ) -> Generator[Step, None, None]:
        forget_networks()  # the seconds are those of a training
        begun = ended = time.perf_counter()
        with closing(self._run(subject, replace(params, T=1), folder)) as events:
            for event in events:
                if isinstance(event, Step) and event.stage in (SPATIAL, SPECTRAL):
                    if event.index == event.total:
                        self._wait()
                    ended = time.perf_counter()
                    yield event
        found = {"seconds": ended - begun, "hardware": describe_device(self.device)}
        _write(folder / _TRAINING, found)

    def _new_plan(self, subject: Subject, params: ArgsDiffParams) -> Plan:
        if self.budget.unit == "steps":
            return _plan(self.budget.amount)
        seconds = 60.0 * self.budget.amount
        d = min(params.dimensions, *subject.capacity())
        tried = replace(params, d=d, T=1, spatial_steps=_MOST, spectral_steps=_MOST)
        spatial = self._seconds_a_step(subject, tried, SPATIAL, seconds)
        # the spectral network's turn comes at once after a spatial one that costs nothing
        tiny = replace(
            tried,
            spatial_steps=1,
            spatial_base=8,
            spatial_levels=1,
            spatial_blocks=1,
            spatial_batch=1,
            spatial_patch=8,
        )
        spectral = self._seconds_a_step(subject, tiny, SPECTRAL, seconds)
        return _plan(seconds / (spatial + SPECTRAL_SHARE * spectral))

    def _seconds_a_step(
        self, subject: Subject, params: ArgsDiffParams, stage: str, budget: float
    ) -> float:
        """Time some steps of a training; the first one, which sets things up, is left out."""
        limit = min(_PROBE_SECONDS, _PROBE_SHARE * budget)
        first: tuple[int, float] | None = None
        with noting_failures(), closing(self._run(subject, params, None)) as events:
            for event in events:
                if not isinstance(event, Step) or event.stage != stage:
                    continue
                if first is None:
                    self._wait()
                    first = event.index, time.perf_counter()
                    continue
                steps = event.index - first[0]
                if steps >= _PROBE_STEPS or time.perf_counter() - first[1] >= limit:
                    self._wait()
                    return (time.perf_counter() - first[1]) / steps
        raise FailedRun(f"{stage}: ended before it could be timed")

    def _run(
        self, subject: Subject, params: ArgsDiffParams, networks: Path | None
    ) -> Generator[Any, None, Any]:
        pair = subject.pair
        return iter_fuse(
            pair.lr_hsi,
            pair.hr_msi,
            srf=pair.response,
            params=params,
            networks=networks,
            seed=self.seed,
            device=str(self.device),
            cancel=self.cancel,
        )

    def _wait(self) -> None:
        """Let a GPU catch up, before the clock is read."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _plan(spatial: float) -> Plan:
    """Steps of both networks, in the published proportion."""
    steps = max(1, min(_MOST, int(spatial)))
    return Plan(steps, max(1, min(_MOST, round(steps * SPECTRAL_SHARE))))


def _settings(params: ArgsDiffParams) -> dict[str, Any]:
    """What a training depends on, besides its length and the dimensions."""
    return {
        name: value
        for name, value in params.to_record().items()
        if name == "average"
        or (name.startswith(("spatial_", "spectral_")) and not name.endswith("_steps"))
    }


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise WeightsError(f"{path}: expected a JSON object, got {type(document).__name__}")
    return document


def _write(path: Path, document: Mapping[str, Any]) -> None:
    from ..engine.checkpoint import prepare_folder

    prepare_folder(path.parent)
    write_text(path, json.dumps(document, indent=1) + "\n")
