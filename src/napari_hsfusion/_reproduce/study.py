"""The ablation study: every distinct design trained alike, scored, and laid out."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._responses import cube_response, psf_note
from .._training.files import RunFiles
from .._training.run import TRAIN, training_events
from .._training.scenes import SceneSet, open_scenes
from .._training.sensors import Sensors
from .._training.trial import Trial, check_apart
from ..engine.device import describe_device, release, resolve_device
from ..engine.emr.weights import METHOD, load_weights
from ..engine.events import CancelToken, Started, Step
from ..engine.methods.base import versions
from ..engine.training_state import read_progress
from ..errors import ParameterError
from ..params.training import TrainingParams
from ..sensors.psf import parse_psf
from . import record as records
from .designs import SHARED, TABLES, Table, Variant, tables_for, variants_of
from .failures import FailedRun, noting_failures
from .interface import Reproduced, Scored
from .options import Budget
from .scores import mean, no_figures, restored, score, to_numbers
from .tables import remove_tables, write_table

if TYPE_CHECKING:
    import torch

    from .interface import ReproduceEvent

EXPERIMENT = "emr-diff-ablation"
READ, ALL, SCORE = "read scenes", "all designs", "score"
"""Stages of a study, beside that of a training."""

WEIGHTS = "weights"
"""Folder of the designs' weights, in that of the study."""

_FREE = ("save_minutes", "log_every", "memory", "steps", "minutes")


@dataclass(frozen=True)
class Study:
    """What is asked for; as :func:`~napari_hsfusion.api.reproduce` takes it.

    Attributes
    ----------
    data, val : Any
    folder : Path
    budget : Budget
    tables : tuple of str, or None
        Names; all of them without.
    scale : int
    psf, srf : Any
    seed : int
    device : str
    design : dict
        Options that all designs share, with ``start``.
    values : TrainingParams
    cancel : CancelToken
    """

    data: Any
    val: Any
    folder: Path
    budget: Budget
    tables: tuple[str, ...] | None
    scale: int
    psf: Any
    srf: Any
    seed: int
    device: str
    design: dict[str, Any]
    values: TrainingParams
    cancel: CancelToken


def study_events(
    study: Study, *, resume: bool, overwrite: bool
) -> Generator[ReproduceEvent, None, Reproduced]:
    """What :func:`napari_hsfusion.api.iter_reproduce` yields and returns.

    Parameters
    ----------
    study : Study
    resume, overwrite : bool

    Returns
    -------
    Reproduced

    Yields
    ------
    Started, Step, Scored, Reproduced
    """
    device = resolve_device(study.device)
    if study.srf is None:
        raise ParameterError("srf: expected a sensor's name, a CSV file or a matrix, got none")
    patch = study.values.patch
    if patch % study.scale:
        raise ParameterError(f"patch: expected a multiple of the ratio {study.scale}, got {patch}")
    # names and options, before anything is read or made
    variants_of(tables_for(_wanted(study), 31, 3), study.design, 31, 3, study.scale)
    psf = parse_psf(study.psf)
    earlier = records.prepare(study.folder, resume=resume, overwrite=overwrite)
    yield Started(EXPERIMENT, {READ: 1, ALL: 1, TRAIN: 1, SCORE: 1})
    kept = 0.5 if study.design["start"] == "subspace" else 1.0
    memory = kept * study.values.memory * 1e6
    scenes = yield from _read(study, study.data, patch=patch, memory=memory)
    first = next((s for s in scenes.scenes if s.wavelength is not None), scenes.scenes[0])
    response = cube_response(study.srf, first.cube.isel(band=first.bands), "training scenes")
    sensors = Sensors(study.scale, psf, response.matrix, study.values.snr)
    bands, msi_bands = scenes.bands, len(response.matrix)
    tables = tables_for(_wanted(study), bands, msi_bands)
    variants, rows = variants_of(tables, study.design, bands, msi_bands, study.scale)
    shared = variants[next(iter(variants))].config.to_record()
    tried = yield from _read(
        study,
        study.val,
        patch=min(patch, 8 * study.scale),
        memory=0.0,
        bands=bands,
        wavelength=None if scenes.wavelength is None else scenes.wavelength.tolist(),
        what="validation data",
    )
    check_apart(scenes, tried)
    trial = Trial(
        tried,
        sensors,
        side=study.values.validation_side,
        device=device,
        seed=study.seed,
        cancel=study.cancel,
        start=shared["start"],
    )
    used = {case.name for case in trial.cases}
    run = {
        "experiment": EXPERIMENT,
        "budget": {study.budget.unit: study.budget.amount},
        "seed": study.seed,
        "design": {name: shared[name] for name in SHARED},
        "parameters": {k: v for k, v in study.values.to_record().items() if k not in _FREE},
        "scale": study.scale,
        "psf": psf_note(psf),
        "srf": sensors.response.tolist(),
        "srf_source": os.path.basename(response.source),
        "scenes": [scene.record() for scene in scenes.scenes],
        "validation": {
            "scenes": [case.name for case in trial.cases],
            "shape": list(trial.cases[0].batch.clean.shape[1:]),
            "data": [scene.record() for scene in tried.scenes if scene.name in used],
        },
    }
    if earlier is not None:
        records.check_same(study.folder / records.NAME, earlier["run"], run)
    work = _Work(study, device, scenes, trial, tables, variants, rows)
    document = {
        "budget": str(study.budget),
        "run": run,
        "skipped": [[s.name, s.reason] for s in (*scenes.skipped, *trial.skipped)],
        "hardware": describe_device(device),
        "versions": versions(),
        "start": None if earlier is None else earlier["start"],
        "tables": rows,
        "designs": {} if earlier is None else earlier["designs"],
    }
    if document["start"] is None:
        document["start"] = work.start_figures()
    if earlier is None:
        remove_tables(study.folder)
        if overwrite:
            every = variants_of(
                tables_for(TABLES, bands, msi_bands), study.design, bands, msi_bands, study.scale
            )
            work.remove(every[0].values())
    records.write(study.folder, document)
    try:
        return (yield from work.events(document, fresh=earlier is None))
    finally:
        release(device)


@dataclass
class _Work:
    """A study whose scenes are open."""

    study: Study
    device: torch.device
    scenes: SceneSet
    trial: Trial
    tables: tuple[Table, ...]
    variants: dict[str, Variant]
    rows: dict[str, list[str]]

    def events(
        self, document: dict[str, Any], *, fresh: bool
    ) -> Generator[ReproduceEvent, None, Reproduced]:
        folder, designs = self.study.folder, document["designs"]
        order = sorted(self.variants.values(), key=lambda v: v.name not in designs)
        written: dict[str, Path] = {}
        for index, variant in enumerate(order, start=1):
            earlier = variant.name in designs
            if not earlier:
                try:
                    with noting_failures():
                        done = yield from self._done(variant, index - 1, fresh)
                except FailedRun as failure:
                    done = self._failed(variant, str(failure))
                designs[variant.name] = done
                records.write(folder, document)
            self._files(variant).state.unlink(missing_ok=True)
            done = designs[variant.name]
            for table in self.tables:
                names = self.rows[table.name]
                if table.name not in written and all(name in designs for name in names):
                    written[table.name] = write_table(folder, table, names, document)
            figures = to_numbers(done["figures"])
            yield Scored(variant.name, index, len(order), figures, earlier, done.get("failed"))
        ordered = {table.name: written[table.name] for table in self.tables}
        result = Reproduced(folder, ordered, document)
        yield result
        return result

    def remove(self, variants: Iterable[Variant]) -> None:
        """Remove weights and states of an earlier study, which is not to be gone on with."""
        for variant in variants:
            files = self._files(variant)
            files.start_anew()
            files.weights.unlink(missing_ok=True)

    def start_figures(self) -> dict[str, Any]:
        """Figures of the start of every chain, before any network."""
        study, cases = self.study, self.trial.cases
        return mean([score(c, c.batch.up[0].float(), study.scale, study.cancel) for c in cases])

    def _done(
        self, variant: Variant, before: int, fresh: bool
    ) -> Generator[Step, None, dict[str, Any]]:
        """Train and score one design; what the record has of it."""
        study = self.study
        header = yield from self._trained(variant, before, fresh)
        files = self._files(variant)
        model = load_weights(files.weights)[0].to(self.device)
        by_scene = {}
        for number, case in enumerate(self.trial.cases, start=1):
            cube = restored(model, case, self.device, study.seed, study.cancel)
            by_scene[case.name] = score(case, cube, study.scale, study.cancel)
            yield Step(SCORE, number, len(self.trial.cases))
        curve = read_progress(files.state).curve
        return {
            "config": variant.config.to_record(),
            "parameters": sum(p.numel() for p in model.parameters()),
            "steps": header["steps"],
            "hours": header["hours"],
            "loss": curve[-1]["loss"] if curve else None,
            "figures": mean(list(by_scene.values())),
            "scenes": by_scene,
            "hardware": header["hardware"],
            "versions": header["versions"],
        }

    def _failed(self, variant: Variant, reason: str) -> dict[str, Any]:
        """What the record has of a design whose training came to nothing."""
        unknown = dict.fromkeys(("parameters", "steps", "hours", "loss"))
        return {
            "config": variant.config.to_record(),
            "failed": reason,
            **unknown,
            "figures": no_figures(),
            "scenes": {},
            "hardware": describe_device(self.device),
            "versions": versions(),
        }

    def _trained(
        self, variant: Variant, before: int, fresh: bool
    ) -> Generator[Step, None, dict[str, Any]]:
        study = self.study
        unit = _units(study.budget)
        events = training_events(
            self.scenes,
            self._files(variant).weights,
            method=METHOD,
            val=None,
            scale=study.scale,
            psf=study.psf,
            srf=study.srf,
            seed=study.seed,
            device=study.device,
            resume=not fresh,
            overwrite=fresh,
            init=None,
            design=variant.design,
            values=study.values,
            cancel=study.cancel,
        )
        try:
            while True:
                event = next(events)
                if isinstance(event, Step) and event.stage == TRAIN:
                    yield event
                    share = round(unit * event.index / event.total)
                    yield Step(ALL, before * unit + share, len(self.variants) * unit)
        except StopIteration as stop:
            header: dict[str, Any] = dict(stop.value.record)
            return header
        finally:
            events.close()

    def _files(self, variant: Variant) -> RunFiles:
        return RunFiles.beside(self.study.folder / WEIGHTS / f"{variant.name}.safetensors")


def _units(budget: Budget) -> int:
    """What a design counts for in the progress over all: its steps, or its seconds."""
    return max(1, ceil(budget.amount * (60 if budget.unit == "minutes" else 1)))


def _read(study: Study, data: Any, **options: Any) -> Generator[Step, None, SceneSet]:
    reading = open_scenes(data, ratio=study.scale, **options)
    try:
        while True:
            index, total = next(reading)
            study.cancel.check()
            yield Step(READ, index, total)
    except StopIteration as stop:
        scenes: SceneSet = stop.value
        return scenes


def _wanted(study: Study) -> tuple[str, ...]:
    return TABLES if study.tables is None else study.tables
