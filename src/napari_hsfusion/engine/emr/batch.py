"""What a supervised network is given for one training step or one restoration."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ...errors import CubeError


@dataclass(frozen=True)
class Batch:
    """Crops of scenes and what two sensors see of them.

    All tensors share a device and a floating type; each scene is divided by its
    (max - min) first.

    Attributes
    ----------
    clean : Tensor, shape (n, C, H, W)
        The HR-HSI.
    coarse : Tensor, shape (n, C, H / s, W / s)
        The LR-HSI: `clean` blurred and decimated by the ratio s.
    up : Tensor, shape (n, C, H, W)
        Bicubic upsampling of `coarse`.
    msi : Tensor, shape (n, c, H, W)
        The HR-MSI.
    edges : Tensor, shape (n, 1, H, W)
        Edge map W of the HR-MSI in [0, 1], normalised over the whole scene.

    Raises
    ------
    CubeError
        If the shapes do not fit each other.
    """

    clean: Tensor
    coarse: Tensor
    up: Tensor
    msi: Tensor
    edges: Tensor

    def __post_init__(self) -> None:
        shapes = {f.name: tuple(getattr(self, f.name).shape) for f in fields(self)}
        if any(len(shape) != 4 for shape in shapes.values()):
            raise CubeError(f"batch: expected tensors (n, bands, rows, columns), got {shapes}")
        n, bands, rows, columns = shapes["clean"]
        h, w = shapes["coarse"][2:]
        fits = (
            shapes["up"] == shapes["clean"]
            and shapes["coarse"][:2] == (n, bands)
            and h > 0
            and w > 0
            and rows % h == 0
            and columns % w == 0
            and rows // h == columns // w
            and shapes["msi"][0] == n
            and shapes["msi"][2:] == (rows, columns)
            and shapes["edges"] == (n, 1, rows, columns)
        )
        if not fits:
            raise CubeError(f"batch: these shapes do not fit each other: {shapes}")

    def __len__(self) -> int:
        """Crops in the batch, n."""
        return int(self.clean.shape[0])

    @property
    def ratio(self) -> int:
        """Ratio s of the two resolutions."""
        return int(self.clean.shape[-1] // self.coarse.shape[-1])

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Batch:
        """Return the batch on another device or in another floating type."""
        return Batch(**self._each(lambda t: t.to(device=device, dtype=dtype)))

    def part(self, start: int, stop: int) -> Batch:
        """Crops `start` to `stop` of the batch, without a copy."""
        return Batch(**self._each(lambda t: t[start:stop]))

    def _each(self, change: Any) -> dict[str, Tensor]:
        return {f.name: change(getattr(self, f.name)) for f in fields(self)}
