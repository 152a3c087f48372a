"""Reproduction of the papers' experiments; :mod:`.api` shows it to the world."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._numbers import checked_seed, whole_number
from ..errors import ParameterError
from ..params import ArgsDiffParams
from ..params.training import TrainingParams
from .args_designs import EXPERIMENTS as ARGS_EXPERIMENTS
from .options import (
    FOR_ARGS,
    FOR_EMR,
    Budget,
    args_values,
    left_out,
    refuse,
    shared_design,
    signal_to_noise,
    table_names,
    training_values,
)

if TYPE_CHECKING:
    from ..engine.events import CancelToken, Started, Step

ABLATION = "emr-diff-ablation"

EXPERIMENTS = (ABLATION, *ARGS_EXPERIMENTS)
"""What can be reproduced."""

DEFAULT_SRF = "gaussian:480/70,560/60,660/60,800/100"
"""Blue, green, red and near infrared, centre/width in nm, where ARGS-Diff is given none: its
authors simulate four such bands for Pavia, which ends at 860 nm."""


@dataclass(frozen=True)
class Scored:
    """A design was run and scored.

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
    failed : str or None
        Why it came to nothing, if it did; it has no figures then.
    """

    name: str
    index: int
    total: int
    figures: Mapping[str, Mapping[str, float | None]]
    earlier: bool = False
    failed: str | None = None


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


def iter_reproduce(
    experiment: str,
    data: Any,
    val: Any,
    out: str | os.PathLike[str],
    *,
    budget: Any,
    tables: Iterable[str] | str | None = None,
    scale: int | None = None,
    psf: Any = None,
    srf: Any = None,
    start: str | None = None,
    size: int | None = None,
    snr: Any = None,
    networks: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    design: Mapping[str, Any] | None = None,
    params: TrainingParams | ArgsDiffParams | Mapping[str, Any] | None = None,
    cancel: CancelToken | None = None,
    **settings: Any,
) -> Generator[ReproduceEvent, None, Reproduced]:
    """Reproduce an experiment, yielding events; the generator returns the last one.

    Parameters
    ----------
    experiment, data, val, out, budget, tables, scale, psf, srf, start, size, snr
        As :func:`reproduce` takes them.
    networks, seed, device, resume, overwrite, design, params, cancel
        As :func:`reproduce` takes them.
    **settings
        Training parameters, or parameters of ARGS-Diff, by name.

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

    if experiment not in EXPERIMENTS:
        raise ParameterError(
            f"experiment: expected one of {', '.join(EXPERIMENTS)}, got {experiment!r}"
        )
    allowed = Budget.of(budget)
    token = cancel if cancel is not None else CancelToken()
    again = {"resume": resume, "overwrite": overwrite}
    folder, named, seed = Path(out).expanduser(), table_names(tables), checked_seed(seed)
    if experiment == ABLATION:
        from .study import Study, study_events

        refuse(experiment, FOR_ARGS, size=size, snr=snr, networks=networks)
        if left_out(val):
            raise ParameterError(f"val: {experiment} expected scenes to score on, got none")
        study = Study(
            data=data,
            val=val,
            folder=folder,
            budget=allowed,
            tables=named,
            scale=whole_number(8 if scale is None else scale, "scale", 1),
            psf="gauss3-bicubic" if psf is None else psf,
            srf=srf,
            seed=seed,
            device=device,
            design={"start": "bicubic" if start is None else start, **shared_design(design)},
            values=training_values(params, settings, allowed),
            cancel=token,
        )
        return (yield from study_events(study, **again))
    from ..sensors.psf import parse_psf
    from .args_scenes import LEAST_SIDE, Observing
    from .args_study import ArgsStudy, args_events

    refuse(experiment, FOR_EMR, val=val, start=start, design=design)
    if networks is not None and experiment == "args-diff-resources":
        raise ParameterError(
            f"networks has no effect with {experiment}: every training is measured anew"
        )
    values, changed = args_values(params, settings)
    asked = ArgsStudy(
        experiment=experiment,
        data=data,
        folder=folder,
        budget=allowed,
        tables=named,
        observing=Observing(
            size=whole_number(256 if size is None else size, "size", LEAST_SIDE),
            scale=whole_number(4 if scale is None else scale, "scale", 2),
            psf=parse_psf("bicubic" if psf is None else psf),
            srf=DEFAULT_SRF if srf is None else srf,
            snr=signal_to_noise(snr),
            seed=seed,
        ),
        seed=seed,
        device=device,
        networks=None if networks is None else Path(networks).expanduser(),
        params=values,
        changed=changed,
        cancel=token,
    )
    return (yield from args_events(asked, **again))


def reproduce(
    experiment: str,
    data: Any,
    val: Any,
    out: str | os.PathLike[str],
    *,
    progress: Callable[[ReproduceEvent], object] | None = None,
    **options: Any,
) -> Reproduced:
    """Reproduce an experiment of a paper: run every variant, score it, lay out the tables.

    ``emr-diff-ablation`` trains every distinct design once, from the same seed and for the
    same budget, and scores it on the validation scenes in the conventions ``emr-diff`` and
    ``hsfusion``, as the network gives it: no agreement with the pair is enforced afterwards.

    The experiments of ARGS-Diff need no training set: every scene is cropped, observed as a
    pair and fused with the published method, whose networks are trained on the pair once a
    number of dimensions; scores are in the conventions ``args-diff`` and ``hsfusion``.

    A design that diverges, or does not fit in memory, is a row that says so; the others go
    on.

    Parameters
    ----------
    experiment : str
        ``emr-diff-ablation``: the ablation tables of EMR-Diff. ``args-diff-argm``,
        ``args-diff-curves``, ``args-diff-rho``, ``args-diff-resources``: of ARGS-Diff,
        the residual module (Table 4), d and T (Figure 5), the guidance steps (Table 5),
        and parameters, memory and time (Table 6).
    data, val : path, xarray.DataArray, or iterable of them
        Scenes to train on and to score on, as :func:`~napari_hsfusion.api.train` takes
        them; for ARGS-Diff references, and None.
    out : path
        Folder for ``record.json``; each table as ``NAME.csv``, ``NAME.md`` and
        ``NAME.png``; and the weights of every design, in ``weights/`` or ``networks/``.
    progress : callable, optional
        Called with every event.
    **options
        ``budget`` of each design, ``minutes=…`` or ``steps=…``, for ARGS-Diff of each
        pair of networks (steps of the spatial one, the other's in the published
        proportion); ``tables``, some of the experiment's; ``scale``, ``psf``, ``srf``,
        ``seed``, ``device``; ``resume``, ``overwrite``; ``params`` and single parameters;
        ``cancel``, a token.

        For EMR-Diff alone: ``start``, ``bicubic`` as published or ``subspace``;
        ``design``, options that all designs share (``width``, ``kappa``); parameters are
        those of :class:`~napari_hsfusion.params.training.TrainingParams`.

        For ARGS-Diff alone: ``size``, side of the central crop at most (256); ``snr`` of
        both images, dB (35; ``none`` adds no noise); ``networks``, a folder to keep
        networks in and take them from, shared by experiments; parameters are those of
        :class:`~napari_hsfusion.params.ArgsDiffParams`.

    Returns
    -------
    Reproduced

    Raises
    ------
    ParameterError
        If an option is unknown, out of range or without effect in this experiment, no
        scene can be used, or the folder has another reproduction.
    WeightsError
        If the folder of networks has some for another budget or other settings.
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
