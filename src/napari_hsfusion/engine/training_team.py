"""Processes that train together: one by default, several through accelerate when asked.

All of them draw from generators in one state and take their own part of every batch;
gradients are averaged over the processes. What depends on a clock is decided by the
first process and told to the others, so that all take the same steps.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

from ..errors import DeviceError


class Team:
    """A process that trains alone; the base of those that do not.

    Attributes
    ----------
    rank, world : int
        This process, counted from 0, of how many.
    """

    rank = 0
    world = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def leads(self) -> bool:
        """Whether this process validates, saves and decides."""
        return self.rank == 0

    def joined(self, module: nn.Module) -> nn.Module:
        """Module whose gradients are averaged over the processes."""
        return module

    def agreed(self, value: float) -> float:
        """Value of the first process."""
        return value

    def wait(self) -> None:
        """Wait for the others."""

    def close(self) -> None:
        """Part from the others."""


class AcceleratedTeam(Team):
    """Processes that were launched together, by ``accelerate launch`` or ``torchrun``.

    Parameters
    ----------
    cpu : bool
        Use no GPU even where there is one.

    Raises
    ------
    DeviceError
        If accelerate is not installed.
    """

    def __init__(self, *, cpu: bool = False) -> None:
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise DeviceError(
                "several processes need accelerate: install napari-hsfusion[train]"
            ) from error
        self._accelerator: Any = Accelerator(cpu=cpu)
        super().__init__(self._accelerator.device)
        self.rank = int(self._accelerator.process_index)
        self.world = int(self._accelerator.num_processes)

    def joined(self, module: nn.Module) -> nn.Module:
        """Wrap the module, so that backward passes average gradients."""
        wrapped: nn.Module = self._accelerator.prepare_model(module)
        return wrapped

    def agreed(self, value: float) -> float:
        """Value of the first process."""
        from accelerate.utils import broadcast

        told = torch.tensor([value], dtype=torch.float64, device=self.device)
        return float(broadcast(told)[0])

    def wait(self) -> None:
        """Wait for the others."""
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Part from the others."""
        self._accelerator.end_training()


def launched_together() -> int:
    """Processes that a launcher started this one among; 1 without a launcher."""
    text = os.environ.get("WORLD_SIZE", "1")
    return int(text) if text.isdigit() else 1


def make_team(device: torch.device) -> Team:
    """Team of this process: alone, or with those that it was launched with.

    Raises
    ------
    DeviceError
        If it was launched with others and accelerate is not installed.
    """
    if launched_together() == 1:
        return Team(device)
    return AcceleratedTeam(cpu=device.type == "cpu")
