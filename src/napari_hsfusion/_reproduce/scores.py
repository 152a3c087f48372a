"""Scores of what a design gives, in two named conventions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._training.trial import Case
from ..engine.emr.model import EmrModel
from ..engine.events import CancelToken
from ..metrics.conventions import iter_scores
from .designs import METRICS
from .failures import check_finite

CONVENTIONS = ("emr-diff", "hsfusion")
"""In which EMR-Diff is scored; the first is the paper's."""

_TILE = 256

Figures = dict[str, dict[str, float | None]]
"""Convention to metric to value; None where a metric has none."""


def restored(
    model: EmrModel, case: Case, device: torch.device, seed: int, cancel: CancelToken
) -> Tensor:
    """Cube (C, H, W) that a network makes of a validation pair; nothing is done to it after.

    Parameters
    ----------
    model : EmrModel
        On `device`, in evaluation mode.
    case : Case
    device : torch.device
    seed : int
        Of the sampling.
    cancel : CancelToken
        Looked at before every step.
    """
    batch = case.batch
    up, msi, edges = (tensor.to(device) for tensor in (batch.up, batch.msi, batch.edges))
    tile = _TILE if max(batch.clean.shape[-2:]) > _TILE else 0
    steps = model.restore(up, msi, edges, torch.Generator().manual_seed(seed), tile)
    cube = batch.up
    for _ in range(model.config.steps):
        cancel.check()
        with torch.no_grad():
            cube = next(steps)
    return cube[0].float().cpu()


def score(case: Case, cube: Tensor, ratio: int, cancel: CancelToken) -> Figures:
    """Figures of one cube against its scene, both divided by the scene's span.

    As :func:`~napari_hsfusion.api.evaluate` computes them: values beyond the scene's range
    count as its ends.

    Parameters
    ----------
    case : Case
    cube : Tensor, shape (C, H, W)
    ratio : int
    cancel : CancelToken
        Looked at after every metric.
    """
    truth = case.batch.clean[0].float().numpy()
    known = np.isfinite(truth).all(axis=0)
    return score_arrays(truth, cube.numpy(), ratio, cancel, known=known)


def score_arrays(
    truth: np.ndarray,
    guess: np.ndarray,
    ratio: int,
    cancel: CancelToken,
    conventions: Sequence[str] = CONVENTIONS,
    known: np.ndarray | None = None,
) -> Figures:
    """Figures of an estimate in some conventions; see :func:`score`.

    Parameters
    ----------
    truth, guess : ndarray, shape (C, H, W)
    ratio : int
    cancel : CancelToken
        Looked at after every metric.
    conventions : sequence of str
    known : ndarray of bool, shape (H, W), optional
        False where a pixel is to be left out.

    Raises
    ------
    FailedRun
        If a value to be scored is not finite.
    """
    everywhere = known is None or bool(known.all())
    mask = None if everywhere or known is None else ~known
    check_finite(guess if mask is None else guess[:, ~mask])
    low, high = min(0.0, float(np.nanmin(truth))), float(np.nanmax(truth))
    guess = guess.clip(low, high)
    out: Figures = {}
    for convention in conventions:
        values: dict[str, float] = {}
        for found in iter_scores(truth, guess, ratio, convention, mask):
            cancel.check()
            values.update(found.values)
            if values.keys() >= set(METRICS):
                break
        out[convention] = {key: _finite(values[key]) for key in METRICS}
    return out


def mean(figures: Sequence[Figures]) -> Figures:
    """Mean over scenes; None where a scene has no value."""
    out: Figures = {}
    for convention in figures[0]:
        out[convention] = {}
        for key in METRICS:
            values = [f[convention][key] for f in figures]
            known = [v for v in values if v is not None]
            whole = len(known) == len(values) and known
            out[convention][key] = sum(known) / len(known) if whole else None
    return out


def no_figures(conventions: Sequence[str] = CONVENTIONS) -> Figures:
    """Figures of a run that came to nothing."""
    return {convention: dict.fromkeys(METRICS) for convention in conventions}


def columns(conventions: Sequence[str] = CONVENTIONS) -> Iterator[tuple[str, str, str, str]]:
    """Convention, metric, label with the unit, and number format of every column."""
    from ..metrics import metric_infos

    for convention in conventions:
        infos = metric_infos(convention)
        for key in METRICS:
            info = infos[key]
            label = info.label if info.unit == "1" else f"{info.label} ({info.unit})"
            yield convention, key, label, _FORMATS[info.unit]


def as_text(value: float | None, form: str) -> str:
    """Text of a figure, a dash where there is none."""
    return "–" if value is None else format(value, form)


def to_numbers(figures: Mapping[str, Any]) -> Figures:
    """Figures as a record has them, in whatever conventions.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it has others.
    """
    if not figures:
        raise ValueError("a design has no figures")
    return {
        convention: {
            key: None if figures[convention][key] is None else float(figures[convention][key])
            for key in METRICS
        }
        for convention in figures
    }


_FORMATS = {"dB": ".2f", "1": ".4f", "rad": ".4f", "deg": ".3f", "%": ".4f"}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
