"""Reproduction of the papers' experiments; :mod:`.api` shows it to the world."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._numbers import checked_seed, whole_number
from ..errors import ParameterError
from ..params.training import TrainingParams

if TYPE_CHECKING:
    from ..engine.events import CancelToken, Started, Step

EXPERIMENTS = ("emr-diff-ablation",)
"""What can be reproduced."""

UNITS = ("minutes", "steps")
"""What a budget is counted in."""

_OWN = ("steps", "minutes", "validate_every", "patience")


@dataclass(frozen=True)
class Scored:
    """A design was trained and scored.

    Attributes
    ----------
    name : str
    index, total : int
        This design, counted from 1, of how many.
    figures : mapping
        Convention to metric to mean over the validation scenes; None where a metric
        has no value.
    earlier : bool
        Whether it was done by an earlier run, which this one goes on from.
    """

    name: str
    index: int
    total: int
    figures: Mapping[str, Mapping[str, float | None]]
    earlier: bool = False


@dataclass(frozen=True)
class Reproduced:
    """Last event of a reproduction.

    Attributes
    ----------
    folder : Path
        Where everything is.
    tables : mapping of str to Path
        Table name to its Markdown file; beside it lie the same as CSV and PNG.
    record : mapping
        JSON-able: what was run, on what, and every figure.
    """

    folder: Path
    tables: Mapping[str, Path]
    record: Mapping[str, Any]


if TYPE_CHECKING:
    ReproduceEvent = Started | Step | Scored | Reproduced


@dataclass(frozen=True)
class Budget:
    """What every design is trained for.

    Attributes
    ----------
    unit : {"minutes", "steps"}
    amount : float
    """

    unit: str
    amount: float

    @classmethod
    def of(cls, given: Any) -> Budget:
        """Budget from its text, as ``minutes=10``, or from a mapping.

        Raises
        ------
        ParameterError
            If it is no amount of one unit.
        """
        if isinstance(given, Budget):
            return given
        if isinstance(given, str):
            name, sign, value = given.partition("=")
            given = {name.strip(): value.strip()} if sign else {}
        if isinstance(given, Mapping) and len(given) == 1:
            unit, amount = next(iter(given.items()))
            if unit in UNITS:
                made = getattr(TrainingParams.from_settings({unit: amount}), unit)
                if made is not None:
                    return cls(unit, made)
        raise ParameterError("budget: expected minutes=NUMBER or steps=NUMBER, a design")

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit}"

    def settings(self) -> dict[str, Any]:
        """Training parameters of this budget."""
        most = next(s.high for s in TrainingParams.describe() if s.name == "steps")
        return {"steps": int(most or 0), "minutes": None, self.unit: self.amount}


def iter_reproduce(
    experiment: str,
    data: Any,
    val: Any,
    out: str | os.PathLike[str],
    *,
    budget: Any,
    tables: Iterable[str] | str | None = None,
    scale: int = 8,
    psf: Any = "gauss3-bicubic",
    srf: Any = None,
    start: str = "bicubic",
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    design: Mapping[str, Any] | None = None,
    params: TrainingParams | Mapping[str, Any] | None = None,
    cancel: CancelToken | None = None,
    **settings: Any,
) -> Generator[ReproduceEvent, None, Reproduced]:
    """Reproduce an experiment, yielding events; the generator returns the last one.

    Parameters
    ----------
    experiment, data, val, out, budget, tables, scale, psf, srf, start, seed, device
        As :func:`reproduce` takes them.
    resume, overwrite, design, params, cancel
        As :func:`reproduce` takes them.
    **settings
        Training parameters by name.

    Returns
    -------
    Reproduced

    Yields
    ------
    Started, Step, Scored, Reproduced

    Raises
    ------
    HSFusionError
        As :func:`reproduce` raises them.
    """
    from ..engine.events import CancelToken
    from .study import Study, study_events

    if experiment not in EXPERIMENTS:
        raise ParameterError(
            f"experiment: expected one of {', '.join(EXPERIMENTS)}, got {experiment!r}"
        )
    allowed = Budget.of(budget)
    study = Study(
        data=data,
        val=val,
        folder=Path(out).expanduser(),
        budget=allowed,
        tables=_names(tables),
        scale=whole_number(scale, "scale", 1),
        psf=psf,
        srf=srf,
        seed=checked_seed(seed),
        device=device,
        design={"start": start, **_design(design)},
        values=_values(params, settings, allowed),
        cancel=cancel if cancel is not None else CancelToken(),
    )
    return (yield from study_events(study, resume=resume, overwrite=overwrite))


def reproduce(
    experiment: str,
    data: Any,
    val: Any,
    out: str | os.PathLike[str],
    *,
    progress: Callable[[ReproduceEvent], object] | None = None,
    **options: Any,
) -> Reproduced:
    """Reproduce an experiment of a paper: train every variant, score it, lay out the tables.

    Every distinct design is trained once, from the same seed and for the same budget, and
    scored on the validation scenes in the conventions ``emr-diff`` and ``hsfusion``, as the
    network gives it: no agreement with the pair is enforced afterwards.

    Parameters
    ----------
    experiment : str
        ``emr-diff-ablation``: the ablation tables of EMR-Diff.
    data, val : path, xarray.DataArray, or iterable of them
        Scenes to train on and to score on, as :func:`~napari_hsfusion.api.train` takes
        them.
    out : path
        Folder for ``record.json``; each table as ``NAME.csv``, ``NAME.md`` and
        ``NAME.png``; and the weights of every design, in ``weights/``.
    progress : callable, optional
        Called with every event.
    **options
        ``budget`` of each design, ``minutes=…`` or ``steps=…``; ``tables``, some of
        ``residual``, ``noise``, ``steps``, ``network``, ``pseudo``; ``scale``, ``psf``,
        ``srf``, ``seed``, ``device`` as for training; ``start``, ``bicubic`` as published
        or ``subspace``; ``design``, options that all designs share (``width``,
        ``kappa``); ``resume``, ``overwrite``; ``params`` and single training parameters
        of :class:`~napari_hsfusion.params.training.TrainingParams`; ``cancel``, a token.

    Returns
    -------
    Reproduced

    Raises
    ------
    ParameterError
        If an option is unknown or out of range, no scene can be used, or the folder has
        another reproduction.
    TrainingError
        If a training diverges, naming the design.
    WriteError
        If a file cannot be written.
    Cancelled
        If `cancel` was set; what is done is kept.
    """
    events = iter_reproduce(experiment, data, val, out, **options)
    try:
        while True:
            event = next(events)
            if progress is not None:
                progress(event)
    except StopIteration as stop:
        done: Reproduced = stop.value
        return done
    finally:
        events.close()


def _names(tables: Iterable[str] | str | None) -> tuple[str, ...] | None:
    if tables is None:
        return None
    listed = tables.split(",") if isinstance(tables, str) else tables
    return tuple(str(name).strip() for name in listed)


def _design(design: Mapping[str, Any] | None) -> dict[str, Any]:
    given = dict(design or {})
    if "start" in given:
        raise ParameterError("design: start has an option of its own; leave it out")
    return given


def _values(
    params: TrainingParams | Mapping[str, Any] | None, settings: Mapping[str, Any], budget: Budget
) -> TrainingParams:
    changes = dict(settings)
    base: TrainingParams | None = None
    if isinstance(params, TrainingParams):
        base = params
    else:
        changes = {**(params or {}), **changes}
    for name in _OWN:
        if name in changes:
            raise ParameterError(
                f"{name} has no effect here: every design is trained for the whole budget, then "
                "scored"
            )
    fixed = {"validate_every": 0, "patience": None, **budget.settings()}
    return TrainingParams.from_settings({**changes, **fixed}, base=base)
