"""One setting of ARGS-Diff on one scene: its networks, its cube, its scores."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .._fuse import iter_fuse
from .._responses import psf_note
from ..engine.device import describe_device
from ..engine.events import Finished, Started, Step
from ..engine.methods.base import versions
from ..engine.nets.build import spatial_network, spectral_network
from ..params import ARGS_DIFF_PRESETS, ArgsDiffParams
from .apart import fuse_apart
from .args_designs import FULL, RESOURCES, Row, Table
from .args_networks import SPATIAL, SPECTRAL, NetworkStore, Trained
from .args_scenes import Subject
from .failures import FailedRun
from .scores import no_figures, score_arrays

if TYPE_CHECKING:
    from .args_study import ArgsStudy

CONVENTIONS = ("args-diff", "hsfusion")
"""In which ARGS-Diff is scored; the first is the paper's."""


@dataclass(frozen=True)
class Run:
    """One setting on one scene: each one once, whatever tables it is in.

    Attributes
    ----------
    name : str
        Of its record.
    setting : str
        Name of the setting.
    row : Row
    subject : Subject
    """

    name: str
    setting: str
    row: Row
    subject: Subject


def runs_of(
    tables: tuple[Table, ...], subjects: tuple[Subject, ...], params: ArgsDiffParams
) -> tuple[tuple[Run, ...], dict[str, list[str]]]:
    """Every distinct run of some tables, and which ones each table has.

    Parameters
    ----------
    tables : tuple of Table
    subjects : tuple of Subject
    params : ArgsDiffParams
        What all rows share.

    Returns
    -------
    runs : tuple of Run
        Scene by scene.
    rows : dict of str to list of str
        Table name to the names of its runs, scene by scene, row by row.
    """
    settings = {_key(Row(""), params): FULL}
    runs: dict[str, Run] = {}
    rows: dict[str, list[str]] = {table.name: [] for table in tables}
    for subject in subjects:
        for table in tables:
            for row in table.rows:
                setting = settings.setdefault(_key(row, params), row.name)
                name = f"{setting} on {subject.name}"
                runs.setdefault(name, Run(name, setting, row, subject))
                rows[table.name].append(name)
    return tuple(runs.values()), rows


class Runner:
    """What does the runs of a study.

    Parameters
    ----------
    study : ArgsStudy
    device : torch.device
    store : NetworkStore
    """

    def __init__(self, study: ArgsStudy, device: torch.device, store: NetworkStore) -> None:
        self.study, self.device, self.store = study, device, store

    def failed(self, run: Run, reason: str) -> dict[str, Any]:
        """What the record has of a run that came to nothing."""
        return self._entry(run, {"failed": reason, "figures": no_figures(CONVENTIONS)})

    def done(self, run: Run) -> Generator[Step, None, dict[str, Any]]:
        """Run one setting on one scene, and score it; what the record has of it.

        Parameters
        ----------
        run : Run

        Returns
        -------
        dict
            JSON-able.

        Yields
        ------
        Step

        Raises
        ------
        FailedRun
            If it comes to nothing.
        """
        if self.study.experiment.endswith(RESOURCES):
            return (yield from self._measured(run))
        params = replace(self.study.params, **run.row.changes)
        bands, pixels = run.subject.capacity()
        if params.dimensions > min(bands, pixels):
            raise FailedRun(
                f"{params.dimensions} dimensions: the scene has {bands} bands and {pixels} "
                "low-resolution pixels"
            )
        params = self.store.plan(run.subject, self.study.params).of(params)
        trained = yield from self.store.obtain(run.subject, params)
        cube, seconds, loss = yield from self._sampled(run, params, trained)
        return self._entry(
            run,
            {
                "figures": self._score(run, cube),
                "steps": [params.spatial_steps, params.spectral_steps],
                "parameters": _weights(params, len(cube)),
                "training_seconds": trained.seconds,
                "training_hardware": trained.hardware,
                "sampling_seconds": seconds,
                "loss": loss,
            },
        )

    def _sampled(
        self, run: Run, params: ArgsDiffParams, trained: Trained
    ) -> Generator[Step, None, tuple[np.ndarray, float, float | None]]:
        pair, loss, begun = run.subject.pair, None, time.perf_counter()
        events = iter_fuse(
            pair.lr_hsi,
            pair.hr_msi,
            srf=pair.response,
            params=params,
            networks=trained.folder,
            seed=self.study.seed,
            device=str(self.device),
            cancel=self.study.cancel,
        )
        cube: np.ndarray | None = None
        with closing(events):
            for event in events:
                if isinstance(event, Started):
                    begun = time.perf_counter()
                elif isinstance(event, Step):
                    loss = event.loss if event.loss is not None else loss
                    yield event
                elif isinstance(event, Finished):
                    cube = event.cube
        seconds = time.perf_counter() - begun
        assert cube is not None
        return cube, seconds, loss if loss is not None and np.isfinite(loss) else None

    def _measured(self, run: Run) -> Generator[Step, None, dict[str, Any]]:
        """Run one method in a process of its own, its training included."""
        subject, row, params = run.subject, run.row, None
        job: dict[str, Any] = {
            "scale": self.study.observing.scale,
            "psf": psf_note(self.study.observing.psf),
            "method": row.method,
            "preset": row.preset or None,
            "params": {},
            "seed": self.study.seed,
            "device": str(self.device),
        }
        if row.method == "args-diff":
            params = ARGS_DIFF_PRESETS[row.preset]
        if run.setting == FULL:
            plan = self.store.plan(subject, self.study.params, keep=False)
            params = plan.of(self.study.params)
            usual = ARGS_DIFF_PRESETS[row.preset].to_record()
            job["params"] = {k: v for k, v in params.to_record().items() if v != usual[k]}
        images = {
            "lr_hsi": subject.pair.lr_hsi.values,
            "hr_msi": subject.pair.hr_msi.values,
            "srf": subject.pair.response.matrix,
        }
        cube, found = yield from fuse_apart(images, job, self.study.cancel)
        stages = found["seconds"]
        training = sum(s for name, s in stages.items() if name.startswith("train "))
        steps, weights = None, 0
        if params is not None and SPATIAL in stages:
            params = replace(params, d=found["dimensions"])
            steps = [params.spatial_steps, params.spectral_steps if SPECTRAL in stages else 0]
            weights = _weights(params, len(cube))
        return self._entry(
            run,
            {
                "figures": self._score(run, cube),
                "steps": steps,
                "parameters": weights,
                "training_seconds": training,
                "sampling_seconds": sum(stages.values()) - training,
                **{key: found[key] for key in ("base_bytes", "peak_bytes", "device_bytes")},
            },
        )

    def _score(self, run: Run, cube: np.ndarray) -> dict[str, dict[str, float | None]]:
        scale, subject = self.study.observing.scale, run.subject
        return score_arrays(
            subject.truth, cube, scale, self.study.cancel, CONVENTIONS, subject.known()
        )

    def _entry(self, run: Run, found: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "scene": run.subject.name,
            "setting": run.setting,
            "changes": dict(run.row.changes),
            **found,
            "hardware": describe_device(self.device),
            "versions": versions(),
        }


def _weights(params: ArgsDiffParams, bands: int) -> int:
    """Numbers in the networks of a run, both or the spatial one alone."""
    with torch.device("meta"):
        networks: list[torch.nn.Module] = [spatial_network(params)]
        if params.sampler == "published":
            networks.append(spectral_network(bands))
    return sum(p.numel() for network in networks for p in network.parameters())


def _key(row: Row, params: ArgsDiffParams) -> str:
    """Text that two rows share if they are the same run."""
    if row.method != "args-diff" or row.preset != "paper":
        return f"{row.method} {row.preset}"
    return json.dumps(replace(params, **row.changes).to_record(), sort_keys=True)
