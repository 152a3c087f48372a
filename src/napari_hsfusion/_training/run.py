"""One training run from folders of scenes to a file of weights."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .._responses import cube_response, psf_note
from .._train import Surveyed, Trained
from ..engine.device import describe_device, release, resolve_device
from ..engine.emr.model import EmrModel
from ..engine.emr.weights import METHOD, check_fit, load_weights, read_weights_header, save_weights
from ..engine.events import CancelToken, Measured, Preview, Started, Step
from ..engine.methods.base import versions
from ..engine.training import Keeping
from ..engine.training import train as minimise
from ..engine.training_recipe import Recipe, best_precision
from ..engine.training_state import Progress, TrainingState, read_progress
from ..engine.training_team import Team, make_team
from ..errors import ParameterError
from ..figures import save_png
from ..params.training import TrainingParams
from ..sensors.psf import parse_psf
from ..sensors.srf import Response
from .crops import Crops
from .design import check_method, make_config, make_model
from .files import RunFiles, check_same_run
from .log import Log, curve_figure
from .scenes import SceneSet, open_scenes
from .sensors import Sensors
from .trial import Trial, check_apart

if TYPE_CHECKING:
    from .._train import TrainEvent

READ, SURVEY, TRAIN = "read scenes", "measure scenes", "train"
"""Stages of a run; the trials in between are a third."""

_SEEDS = 2**62
_DRAW_SECONDS = 60.0


def training_events(
    data: Any,
    out: Path,
    *,
    method: str,
    val: Any,
    scale: int,
    psf: Any,
    srf: Any,
    seed: int,
    device: str,
    resume: bool,
    overwrite: bool,
    init: Path | None,
    design: Mapping[str, Any],
    values: TrainingParams,
    cancel: CancelToken,
) -> Generator[TrainEvent, None, Trained]:
    """What :func:`napari_hsfusion.api.iter_train` yields and returns, options checked there.

    Parameters
    ----------
    data, out, method, val, scale, psf, srf, seed, device, resume, overwrite, init, design
        As :func:`napari_hsfusion.api.train` takes them.
    values : TrainingParams
    cancel : CancelToken

    Returns
    -------
    Trained

    Yields
    ------
    Started, Surveyed, Step, Preview, Measured, Trained
    """
    check_method(method)
    files = RunFiles.beside(out)
    team = make_team(resolve_device(device))
    if srf is None:
        raise ParameterError("srf: expected a sensor's name, a CSV file or a matrix, got none")
    values.check_ratio(scale)
    started = None if init is None else load_weights(init)
    if started is not None and design:
        raise ParameterError("give either init or a design, not both: weights have their own")
    if team.leads:
        files.prepare(resume=resume, overwrite=overwrite)
    team.wait()
    going_on = resume and files.state.is_file()
    yield Started(method, {READ: 1, SURVEY: 1, TRAIN: values.steps})
    known = {} if started is None else started[1]
    wanted = design if started is None else started[0].config.to_record()
    # closed-form starts are kept beside the scenes
    share = 0.5 if wanted.get("start") == "subspace" else 1.0
    scenes = yield from _read(
        data,
        cancel,
        ratio=scale,
        patch=values.patch,
        bands=known.get("bands"),
        wavelength=known.get("wavelengths"),
        memory=share * values.memory * 1e6,
    )
    sensors, response = _sensors(scenes, scale, psf, srf, values.snr)
    if started is None:
        config = make_config(
            design, bands=scenes.bands, msi_bands=len(response.matrix), ratio=scale
        )
        model = make_model(config, seed)
    else:
        model, header = started
        check_fit(header, scenes.bands, scenes.wavelength, scale, len(response.matrix))
        model = model.requires_grad_(True)
    trial = None
    if val is not None:
        tried = yield from _read(
            val,
            cancel,
            ratio=scale,
            patch=min(values.patch, 8 * scale),
            bands=scenes.bands,
            wavelength=_listed(scenes.wavelength),
            memory=0.0,
            what="validation data",
        )
        check_apart(scenes, tried)
        trial = Trial(
            tried,
            sensors,
            side=values.validation_side,
            device=team.device,
            seed=seed,
            cancel=cancel,
            start=model.config.start,
        )
    crops = Crops(scenes, sensors, patch=values.patch, turns=values.turns, start=model.config.start)
    for index in crops.survey(cancel):
        yield Step(SURVEY, index, len(scenes.scenes))
    skipped = [*scenes.skipped, *(() if trial is None else trial.skipped)]
    centres = _listed(scenes.wavelength)
    yield Surveyed(
        tuple(scene.name for scene in scenes.scenes),
        tuple((one.name, one.reason) for one in skipped),
        None if centres is None else tuple(centres),
        None if trial is None else trial.record(),
        model.config.start,
    )
    run = _Run(
        files=files,
        values=values,
        team=team,
        cancel=cancel,
        model=model.to(team.device),
        crops=crops,
        trial=trial,
        seed=seed,
        about={
            "wavelengths": _listed(scenes.wavelength),
            "psf": psf_note(sensors.psf),
            "srf": sensors.response.tolist(),
            "srf_source": os.path.basename(response.source),
            "snr": values.snr,
            "seed": seed,
            "scenes": [scene.record() for scene in scenes.scenes],
            "skipped": [[s.name, s.reason] for s in scenes.skipped],
            "validation": None if trial is None else trial.record(),
            "init": None if init is None else init.name,
        },
    )
    try:
        return (yield from run.events(going_on))
    finally:
        release(team.device)
        team.close()


@dataclass
class _Run:
    """Everything of a run once the scenes are read."""

    files: RunFiles
    values: TrainingParams
    team: Team
    cancel: CancelToken
    model: EmrModel
    crops: Crops
    trial: Trial | None
    seed: int
    about: dict[str, Any]
    _tried: Any = None
    _drawn: float = field(default_factory=time.monotonic)

    def events(self, going_on: bool) -> Generator[TrainEvent, None, Trained]:
        wanted = {
            "config": self.model.config.to_record(),
            **{key: self.about[key] for key in ("psf", "srf", "snr", "seed", "scenes")},
            **{key: getattr(self.values, key) for key in ("patch", "batch", "turns", "average")},
            "processes": self.team.world,
            "validation": None if self.trial is None else self.trial.identity(),
        }
        earlier: list[dict[str, Any]] = []
        if going_on:
            check_same_run(self.files.state, wanted)
            earlier = read_progress(self.files.state).curve
        elif self.team.leads:
            self.files.start_anew()
        log = self._open_log(earlier) if self.team.leads else None
        figures = self._earlier_figures(going_on)
        progress = Progress()
        steps = minimise(
            self.model,
            self._loss,
            self._recipe(),
            stage=TRAIN,
            generator=torch.Generator().manual_seed(self.seed),
            cancel=self.cancel,
            team=self.team,
            keeping=Keeping(self.files.state, wanted, resume=going_on),
            validate=None if self.trial is None else self._try,
            progress=progress,
        )
        try:
            while True:
                event = next(steps)
                if isinstance(event, Measured):
                    if progress.best_step == event.index and self.trial is not None:
                        figures = dict(self.trial.figures)
                        self._save(self._tried, self._header(progress, figures))
                    self._report(log, progress)
                elif log is not None:
                    log.append(progress.curve, hold=1)
                yield self._timed(event, progress)
        except StopIteration as stop:
            state: TrainingState = stop.value
        finally:
            steps.close()
        self._report(log, progress, last=True)
        header = self._header(progress, figures)
        self.model.load_state_dict(state.best or state.averaged.module.state_dict())
        self._save(self.model, header)
        self.team.wait()
        done = Trained(self.files.weights, header)
        yield done
        return done

    def _open_log(self, earlier: list[dict[str, Any]]) -> Log:
        # the last row may yet be given a metric
        return Log(self.files.log, earlier[:-1])

    def _earlier_figures(self, going_on: bool) -> dict[str, float]:
        """Figures of the best trial of the parts of this run before, where it had one."""
        if not going_on or not self.files.weights.is_file():
            return {}
        return dict(read_weights_header(self.files.weights).get("figures", {}))

    def _try(
        self, network: nn.Module, progress: Progress
    ) -> Generator[Preview | Step, None, float]:
        assert self.trial is not None
        self._tried = network
        return (yield from self.trial(network, progress))

    def _save(self, network: Any, header: Mapping[str, Any]) -> None:
        if self.team.leads:
            save_weights(self.files.weights, network, header)

    def _loss(self, network: nn.Module, generator: torch.Generator) -> Tensor:
        team = self.team
        batch = self.crops.draw(
            self.values.batch, generator, team.device, rank=team.rank, world=team.world
        )
        seeds = torch.randint(_SEEDS, (team.world,), generator=generator)
        own = torch.Generator().manual_seed(int(seeds[team.rank]))
        learner: Any = network
        loss: Tensor = learner.loss(batch, own)
        return loss

    def _recipe(self) -> Recipe:
        values = self.values
        named = values.precision
        return Recipe(
            steps=values.steps,
            rate=values.rate,
            schedule=values.schedule,
            average=values.average,
            clip=values.clip,
            precision=best_precision(self.team.device) if named == "auto" else named,
            minutes=values.minutes,
            validate_every=values.validate_every,
            patience=values.patience,
            save_seconds=60.0 * values.save_minutes,
            log_every=values.log_every,
        )

    def _timed(self, event: TrainEvent, progress: Progress) -> TrainEvent:
        """Event whose total is what the time allows, so that the time left is right."""
        minutes = self.values.minutes
        if minutes is None or not isinstance(event, Step) or event.stage != TRAIN:
            return event
        if progress.seconds <= 0:
            return event
        allowed = int(event.index * 60.0 * minutes / progress.seconds)
        return replace(event, total=max(event.index, min(event.total, allowed)))

    def _report(self, log: Log | None, progress: Progress, *, last: bool = False) -> None:
        """Complete the log; the curve is drawn now and then, and at the end."""
        if log is None:
            return
        log.append(progress.curve)
        now = time.monotonic()
        if progress.curve and (last or now - self._drawn >= _DRAW_SECONDS):
            self._drawn = now
            title = f"{self.files.weights.name}: {len(self.crops.scenes)} scenes"
            figure = curve_figure(progress.curve, metric=Trial.metric, title=title)
            save_png(figure, self.files.curve)

    def _header(self, progress: Progress, figures: Mapping[str, float]) -> dict[str, Any]:
        return {
            "method": METHOD,
            "config": self.model.config.to_record(),
            **self.about,
            "parameters": self.values.to_record(),
            "figures": dict(figures),
            "metric": progress.best,
            "best_step": progress.best_step,
            "steps": progress.step,
            "hours": progress.seconds / 3600.0,
            "processes": self.team.world,
            "hardware": describe_device(self.team.device),
            "versions": versions(),
        }


def _read(data: Any, cancel: CancelToken, **options: Any) -> Generator[Step, None, SceneSet]:
    reading = open_scenes(data, **options)
    try:
        while True:
            index, total = next(reading)
            cancel.check()
            yield Step(READ, index, total)
    except StopIteration as stop:
        scenes: SceneSet = stop.value
        return scenes


def _sensors(
    scenes: SceneSet, scale: int, psf: Any, srf: Any, snr: float | None
) -> tuple[Sensors, Response]:
    first = next((s for s in scenes.scenes if s.wavelength is not None), scenes.scenes[0])
    response = cube_response(srf, first.cube.isel(band=first.bands), "training scenes")
    return Sensors(scale, parse_psf(psf), response.matrix, snr), response


def _listed(values: Any) -> list[float] | None:
    return None if values is None else [float(v) for v in values]
