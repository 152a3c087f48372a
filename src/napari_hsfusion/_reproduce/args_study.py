"""The experiments of ARGS-Diff: every setting sampled on every scene, scored, and laid out."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .._responses import psf_note
from .._training.scenes import Skipped
from ..engine.device import describe_device, release, resolve_device
from ..engine.events import CancelToken, Started, Step
from ..engine.methods.base import versions
from ..errors import ParameterError
from ..params import ArgsDiffParams
from . import record as records
from .args_designs import Table, all_table_names, tables_of
from .args_networks import SPATIAL, SPECTRAL, NetworkStore
from .args_runs import Run, Runner, runs_of
from .args_scenes import Observing, Subject, open_subjects
from .args_tables import write_table
from .failures import FailedRun, noting_failures
from .interface import Reproduced, Scored
from .options import Budget
from .scores import to_numbers
from .tables import remove_tables

if TYPE_CHECKING:
    from .interface import ReproduceEvent

READ, ALL, SAMPLE = "read scenes", "all runs", "sample"
"""Stages of a study, beside those of the method."""

NETWORKS = "networks"
"""Folder of the networks, in that of the study."""


@dataclass(frozen=True)
class ArgsStudy:
    """What is asked for; as :func:`~napari_hsfusion.api.reproduce` takes it.

    Attributes
    ----------
    experiment : str
    data : Any
    folder : Path
    budget : Budget
    tables : tuple of str, or None
        Names; all of the experiment's without.
    observing : Observing
    seed : int
    device : str
    networks : Path or None
        Where networks are kept; in the folder without.
    params : ArgsDiffParams
        What all rows share.
    changed : tuple of str
        Names of the parameters that were set.
    cancel : CancelToken
    """

    experiment: str
    data: Any
    folder: Path
    budget: Budget
    tables: tuple[str, ...] | None
    observing: Observing
    seed: int
    device: str
    networks: Path | None
    params: ArgsDiffParams
    changed: tuple[str, ...]
    cancel: CancelToken


def args_events(
    study: ArgsStudy, *, resume: bool, overwrite: bool
) -> Generator[ReproduceEvent, None, Reproduced]:
    """What :func:`napari_hsfusion.api.iter_reproduce` yields and returns.

    Parameters
    ----------
    study : ArgsStudy
    resume, overwrite : bool

    Returns
    -------
    Reproduced

    Yields
    ------
    Started, Step, Scored, Reproduced
    """
    device = resolve_device(study.device)
    tables = tables_of(study.experiment, study.tables)
    _check_settings(study, tables)
    again = (study.folder / records.NAME).exists()
    earlier = records.prepare(study.folder, resume=resume, overwrite=overwrite)
    stages = (READ, ALL, SPATIAL, SPECTRAL, SAMPLE)
    yield Started(study.experiment, dict.fromkeys(stages, 1))
    reading = open_subjects(study.data, study.observing, study.cancel)
    subjects, skipped = yield from _read(reading)
    run = _asked(study, subjects)
    if earlier is not None:
        records.check_same(study.folder / records.NAME, earlier["run"], run)
    runs, rows = runs_of(tables, subjects, study.params)
    document = {
        "budget": str(study.budget),
        "run": run,
        "skipped": [[s.name, s.reason] for s in skipped],
        "hardware": describe_device(device),
        "versions": versions(),
        "tables": rows,
        "designs": {} if earlier is None else earlier["designs"],
    }
    if again and earlier is None:
        remove_tables(study.folder, all_table_names())
        if study.networks is None:
            shutil.rmtree(study.folder / NETWORKS, ignore_errors=True)
    records.write(study.folder, document)
    try:
        return (yield from _Work(study, device, tables, runs).events(document))
    finally:
        release(device)


@dataclass
class _Work:
    """A study whose scenes are open."""

    study: ArgsStudy
    device: torch.device
    tables: tuple[Table, ...]
    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        study = self.study
        folder = study.networks or study.folder / NETWORKS
        store = NetworkStore(folder, study.budget, study.seed, self.device, study.cancel)
        self.runner = Runner(study, self.device, store)

    def events(self, document: dict[str, Any]) -> Generator[ReproduceEvent, None, Reproduced]:
        folder, designs = self.study.folder, document["designs"]
        order = sorted(self.runs, key=lambda run: run.name not in designs)
        written: dict[str, Path] = {}
        for index, run in enumerate(order, start=1):
            earlier = run.name in designs
            if not earlier:
                self.study.cancel.check()
                try:
                    with noting_failures():
                        done = yield from self.runner.done(run)
                except FailedRun as failure:
                    done = self.runner.failed(run, str(failure))
                designs[run.name] = done
                records.write(folder, document)
            yield Step(ALL, index, len(order))
            for table in self.tables:
                names = document["tables"][table.name]
                if table.name not in written and all(name in designs for name in names):
                    written[table.name] = write_table(folder, table, document)
            done = designs[run.name]
            figures = to_numbers(done["figures"])
            yield Scored(run.name, index, len(order), figures, earlier, done.get("failed"))
        ordered = {table.name: written[table.name] for table in self.tables}
        result = Reproduced(folder, ordered, document)
        yield result
        return result


def _check_settings(study: ArgsStudy, tables: tuple[Table, ...]) -> None:
    varied = {name: table.name for table in tables for name in table.varied}
    for name in study.changed:
        if name in varied:
            raise ParameterError(f"{name}: the table {varied[name]} sets this")
    most = next(s.high for s in ArgsDiffParams.describe() if s.name == "spatial_steps")
    if study.budget.unit == "steps" and study.budget.amount > (most or 0):
        raise ParameterError(f"budget: expected at most {most:g} steps, got {study.budget}")


def _asked(study: ArgsStudy, subjects: tuple[Subject, ...]) -> dict[str, Any]:
    """What a study that goes on must share with this one."""
    return {
        "experiment": study.experiment,
        "budget": {study.budget.unit: study.budget.amount},
        "seed": study.seed,
        "parameters": study.params.to_record(),
        "changed": sorted(study.changed),
        "scale": study.observing.scale,
        "size": study.observing.size,
        "psf": psf_note(study.observing.psf),
        "snr": study.observing.snr,
        "srf_source": _source(subjects[0].pair.response.source),
        "scenes": [{"name": s.name, **s.record} for s in subjects],
    }


def _source(text: str) -> str:
    """Name of a response without the folders of its file."""
    return Path(text).name if "/" in text and not text.startswith("gaussian:") else text


def _read(
    reading: Generator[tuple[int, int], None, tuple[tuple[Subject, ...], tuple[Skipped, ...]]],
) -> Generator[Step, None, tuple[tuple[Subject, ...], tuple[Skipped, ...]]]:
    try:
        while True:
            index, total = next(reading)
            yield Step(READ, index, total)
    except StopIteration as stop:
        found: tuple[tuple[Subject, ...], tuple[Skipped, ...]] = stop.value
        return found
