"""The files of a training run: weights, and beside them its state, log and curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine.checkpoint import prepare_folder
from ..engine.training_state import read_state_header
from ..errors import ParameterError, WeightsError, WriteError
from .design import weights_name


@dataclass(frozen=True)
class RunFiles:
    """Paths of a run.

    Attributes
    ----------
    weights : Path
        What is made: NAME.safetensors.
    state : Path
        What an interrupted run goes on from: NAME.state.safetensors.
    log, curve : Path
        NAME.csv and NAME.png.
    """

    weights: Path
    state: Path
    log: Path
    curve: Path

    @classmethod
    def beside(cls, out: Path) -> RunFiles:
        """Files of the run that makes `out`.

        Raises
        ------
        ParameterError
            If the name does not end in ``.safetensors``.
        """
        out = weights_name(out.expanduser())
        return cls(
            out,
            out.with_suffix(".state.safetensors"),
            out.with_suffix(".csv"),
            out.with_suffix(".png"),
        )

    def prepare(self, *, resume: bool, overwrite: bool) -> None:
        """Make sure that the files can be written, and no earlier run is lost.

        Raises
        ------
        ParameterError
            If there are files of an earlier run, and neither `resume` nor
            `overwrite` is set, or both are.
        WriteError
            If the folder cannot be written.
        """
        if resume and overwrite:
            raise ParameterError("give either resume or overwrite, not both")
        prepare_folder(self.weights.parent)
        if resume and self.state.is_file():
            return
        there = [str(path) for path in (self.weights, self.state) if path.exists()]
        if there and not overwrite:
            how = f"there is no {self.state.name} to resume" if resume else _RESUME
            raise ParameterError(
                f"{' and '.join(there)}: there already; {how}, overwrite starts anew, or choose "
                "another name"
            )

    def start_anew(self) -> None:
        """Remove the state of an earlier run, which is not to be gone on with.

        Raises
        ------
        WriteError
            If it cannot be removed.
        """
        try:
            self.state.unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(f"{self.state}: cannot be removed: {error}") from error


_RESUME = "resume goes on with that run"


def check_same_run(path: Path, wanted: Mapping[str, Any]) -> None:
    """Make sure that a saved state is that of the run that is asked for.

    Parameters
    ----------
    path : Path
    wanted : mapping
        What a run may not change from one part to the next; what the state does not
        say, as it was saved before that was noted, is not compared.

    Raises
    ------
    WeightsError
        Naming the first difference, or if the state is damaged.
    """
    found = read_state_header(path)
    for key, value in wanted.items():
        if found.get(key, value) != value:
            raise WeightsError(
                f"{path}: the run to resume has {key} = {_short(found[key])}, this one "
                f"{_short(value)}: give the same data and options, or another output"
            )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}…"
