"""Weights that come with the package, and the choice of those that fit a pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import WeightsError
from ..observation import Problem
from .model import EmrModel
from .weights import check_fit, load_weights, read_weights_header

FOLDER = Path(__file__).resolve().parents[2] / "weights"
"""Where they lie."""


def shipped_weights() -> list[Path]:
    """Files of weights that come with the package, by name."""
    return sorted(FOLDER.glob("emr-diff-*.safetensors"))


def weights_for(problem: Problem, given: str | None) -> Path:
    """File of weights for a pair.

    Parameters
    ----------
    problem : Problem
    given : str, optional
        A file; by default the shipped set that fits.

    Raises
    ------
    WeightsError
        If the given weights do not fit or cannot be read; or if none is given and none
        that is shipped fits, saying why.
    """
    if given is not None:
        path = Path(given).expanduser()
        _check(read_weights_header(path), problem)
        return path
    reasons = []
    for path in shipped_weights():
        try:
            _check(read_weights_header(path), problem)
        except WeightsError as error:
            reasons.append(f"{path.stem}: {error}")
        else:
            return path
    listed = "; ".join(reasons) or "none is there"
    raise WeightsError(
        f"no weights that come with the package fit this pair ({listed}). Train a network on the "
        "pair itself (train_on=pair), or on data of its kind (hsfusion train emr-diff), and give "
        "its file as weights"
    )


def load_fitting(problem: Problem, given: str | None) -> tuple[EmrModel, dict[str, Any], Path]:
    """Model for a pair, its header and its file; as :func:`weights_for`."""
    path = weights_for(problem, given)
    return (*load_weights(path), path)


def _check(header: dict[str, Any], problem: Problem) -> None:
    check_fit(
        header,
        len(problem.x),
        problem.wavelengths,
        problem.spatial.ratio,
        len(problem.y),
        problem.spectral.matrix,
    )
