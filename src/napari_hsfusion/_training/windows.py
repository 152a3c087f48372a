"""Crops within their scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .scenes import Scene


@dataclass(frozen=True)
class Window:
    """A crop within its scene, and the part that is read for it.

    Attributes
    ----------
    rows, columns : (int, int)
        First pixel that is read, and the one after the last.
    before, after : (int, int)
        Margin above and left of the crop, below and right of it.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]

    @classmethod
    def around(cls, scene: Scene, top: int, left: int, side: int, margin: int) -> Window:
        """Window of a square crop; the margin ends at the scene's border."""
        return cls.of(scene, (top, top + side), (left, left + side), margin)

    @classmethod
    def of(
        cls, scene: Scene, rows: tuple[int, int], columns: tuple[int, int], margin: int
    ) -> Window:
        """Window of any crop."""
        _, height, width = scene.shape
        first = max(0, rows[0] - margin), max(0, columns[0] - margin)
        last = min(height, rows[1] + margin), min(width, columns[1] + margin)
        return cls(
            (first[0], last[0]),
            (first[1], last[1]),
            (rows[0] - first[0], columns[0] - first[1]),
            (last[0] - rows[1], last[1] - columns[1]),
        )

    def read(self, scene: Scene) -> npt.NDArray[np.float32]:
        """Values (C, rows, columns) divided by the scene's span."""
        values = scene.window(self.rows, self.columns)
        values /= np.float32(scene.span)
        return values
