"""State of a training run: what it takes to go on, bit for bit, after any interruption.

One safetensors file with a JSON header; it appears whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from ..errors import TrainingError, WeightsError, WriteError
from .checkpoint import replace_file

_KEY = "hsfusion"
_KIND = "training state 1"


@dataclass
class Progress:
    """How far a run is; JSON-able.

    Attributes
    ----------
    step : int
        Gradient steps taken.
    seconds : float
        Time spent, over all parts of the run.
    validated : int
        Step of the last validation.
    best : float or None
        Highest metric of a validation, reached at step `best_step`.
    mark : float or None
        The last metric that counted as a gain.
    stale : int
        Validations since then.
    total, counted : float, int
        Sum and number of the losses since the curve's last row.
    curve : list of dict
        ``step``, ``seconds``, ``rate``, ``loss`` (mean since the row before) and
        ``metric`` (None but after a validation).
    """

    step: int = 0
    seconds: float = 0.0
    validated: int = 0
    best: float | None = None
    best_step: int = 0
    mark: float | None = None
    stale: int = 0
    total: float = 0.0
    counted: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class TrainingState:
    """Everything that changes in a run.

    Attributes
    ----------
    network : torch.nn.Module
    averaged : AveragedModel
    optimiser : Optimizer
    scaler : GradScaler
    generator : torch.Generator
        On the CPU.
    progress : Progress
    best : dict of str to Tensor
        Averaged weights of the best validation; empty before the first.
    """

    network: nn.Module
    averaged: AveragedModel
    optimiser: Optimizer
    scaler: GradScaler
    generator: torch.Generator
    progress: Progress = field(default_factory=Progress)
    best: dict[str, Tensor] = field(default_factory=dict)

    def remember_best(self) -> None:
        """Copy the averaged weights as the best so far."""
        weights = self.averaged.module.state_dict()
        self.best = {name: value.detach().clone() for name, value in weights.items()}

    def save(self, path: Path, header: Mapping[str, Any]) -> None:
        """Write the state, whole or not at all.

        Parameters
        ----------
        path : Path
        header : mapping
            JSON-able: what the run is, for :func:`read_state_header`.

        Raises
        ------
        TrainingError
            If a weight is not finite; the file is as it was.
        WriteError
            If it cannot be written.
        """
        if not all(bool(torch.isfinite(p).all()) for p in self.network.parameters()):
            raise TrainingError(diverged(self.progress.step))
        tensors = {
            **_named("network", self.network.state_dict()),
            **_named("average", self.averaged.module.state_dict()),
            **_named("best", self.best),
            "average_count": self.averaged.n_averaged.detach().cpu().reshape(1),
            "generator": self.generator.get_state(),
        }
        for index, values in self.optimiser.state_dict()["state"].items():
            for key, value in values.items():
                tensors[f"optimiser.{index}.{key}"] = value.detach().cpu().clone()
        document = {
            "kind": _KIND,
            "run": dict(header),
            "progress": asdict(self.progress),
            "scaler": self.scaler.state_dict(),
        }
        content = safetensors.torch.save(tensors, {_KEY: json.dumps(document)})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content)
        except OSError as error:
            raise WriteError(f"{path}: the training state cannot be saved: {error}") from error

    def load(self, path: Path) -> None:
        """Take up a saved state.

        Raises
        ------
        WeightsError
            If the file is damaged, or belongs to another network.
        """
        document = _document(path)
        try:
            tensors = safetensors.torch.load_file(path)
            self.network.load_state_dict(_part(tensors, "network"))
            self.averaged.module.load_state_dict(_part(tensors, "average"))
            self.averaged.n_averaged.copy_(tensors["average_count"][0])
            device = next(self.network.parameters()).device
            self.best = {k: v.to(device) for k, v in _part(tensors, "best").items()}
            known = self.optimiser.state_dict()
            known["state"] = _nested(_part(tensors, "optimiser"))
            self.optimiser.load_state_dict(known)
            self.generator.set_state(tensors["generator"])
            self.scaler.load_state_dict(document["scaler"])
            self.progress.__dict__.update(Progress(**document["progress"]).__dict__)
        except (KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
            raise WeightsError(f"{path}: not the state of this training run: {error}") from error
        except safetensors.SafetensorError as error:
            raise WeightsError(f"{path}: a damaged training state: {error}") from error


def read_state_header(path: Path) -> dict[str, Any]:
    """What the run is whose state was saved.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or no training state.
    """
    run: dict[str, Any] = _document(path)["run"]
    return run


def read_progress(path: Path) -> Progress:
    """How far the run is whose state was saved.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or no training state.
    """
    return Progress(**_document(path)["progress"])


def diverged(step: int) -> str:
    """Message of a run whose loss or weights are no longer finite."""
    return (
        f"training diverged at step {step}: the loss or a weight is no longer finite; "
        "give a smaller rate, clip the gradients, or compute in float32"
    )


def _document(path: Path) -> dict[str, Any]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_KEY, "")
        document = json.loads(text)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be read as a training state: {error}") from error
    if not isinstance(document, dict) or document.get("kind") != _KIND:
        raise WeightsError(f"{path}: expected a {_KIND}, got another kind of file")
    return document


def _named(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # clones: safetensors takes no two tensors that share memory
    return {f"{prefix}.{name}": v.detach().cpu().clone().contiguous() for name, v in state.items()}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name[len(start) :]: v for name, v in tensors.items() if name.startswith(start)}


def _nested(state: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    out: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        index, _, key = name.partition(".")
        out.setdefault(int(index), {})[key] = value
    return out
