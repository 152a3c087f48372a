"""Work beside a graphics card's main stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


class SideStream:
    """A stream for copies, so that who reads them does not wait for steps queued after.

    Parameters
    ----------
    device : torch.device
        On the CPU there are no streams, and everything is done where it is called.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def take(self, make: Callable[[], T]) -> T:
        """Do what `make` does after all that is queued, before all that is queued later.

        Nothing waits on the host: what comes back may not be worked out yet. Read it on
        :attr:`stream`.
        """
        if self.stream is None:
            return make()
        main = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(main)
        with torch.cuda.stream(self.stream):
            made = make()
        main.wait_stream(self.stream)  # the next step may overwrite what was copied
        return made
