"""What an EMR-Diff model is: bands, ratio and the named options of its design."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ...errors import WeightsError
from ..nets.baf_unet import ARCHITECTURES, Layout

RESIDUALS = ("multimodal", "unimodal", "none")
NOISES = ("edge-aware", "plain")
STARTS = ("bicubic", "subspace")


@dataclass(frozen=True)
class EmrConfig:
    """Design of a model; everything that its weights depend on.

    Attributes
    ----------
    bands, msi_bands : int
        C of the LR-HSI and c of the HR-MSI.
    ratio : int
        Size of an LR pixel in HR pixels.
    width : int
        Channels of every level of the network.
    architecture : str
        ``baf-unet``; ``baf-unet-s`` without supervision of coarser levels; ``af-unet``
        with one encoder; ``b-unet`` with plain blocks; ``unet`` with neither.
    residual : str
        What the chain starts from. ``multimodal``: the upsampled LR-HSI and the HR-MSI,
        for a state of HR-HSI and pseudo-MSI. ``unimodal``: the upsampled LR-HSI, for a
        state of the HR-HSI alone. ``none``: zero, as in a plain diffusion.
    noise : str
        ``edge-aware``: only at the edges of the HR-MSI. ``plain``: everywhere.
    start : str
        The upsampled LR-HSI of state and guidance: ``bicubic`` interpolation as
        published, or the closed-form ``subspace`` estimate in its place.
    steps : int
        T of the chain.
    kappa : float
        Noise level.
    pseudo : tuple of int
        0-based bands of the HR-HSI that stand for the HR-MSI in the state.
    """

    bands: int
    msi_bands: int
    ratio: int
    width: int
    architecture: str = "baf-unet"
    residual: str = "multimodal"
    noise: str = "edge-aware"
    start: str = "bicubic"
    steps: int = 5
    kappa: float = 2.0
    pseudo: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise WeightsError(
                    f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        for name in ("bands", "msi_bands", "ratio", "width", "steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                called = "T" if name == "steps" else name  # as users give it
                raise WeightsError(
                    f"{called}: expected a whole number of at least 1, got {value!r}"
                )
        if not (math.isfinite(self.kappa) and self.kappa > 0):
            raise WeightsError(f"kappa: expected a number above 0, got {self.kappa}")
        first = tuple(b % self.bands for b in range(self.msi_bands))
        object.__setattr__(self, "pseudo", tuple(int(b) for b in self.pseudo) or first)
        outside = [b for b in self.pseudo if not 0 <= b < self.bands]
        if len(self.pseudo) != self.msi_bands or outside:
            raise WeightsError(
                f"pseudo: expected {self.msi_bands} bands from 1 to {self.bands}, "
                f"got {','.join(str(b + 1) for b in self.pseudo)}"
            )

    @property
    def state(self) -> int:
        """Channels of the state."""
        return self.bands + (0 if self.residual == "unimodal" else self.msi_bands)

    @property
    def layout(self) -> Layout:
        """Shape of the network."""
        return Layout(self.state, self.bands + self.msi_bands, self.width, self.architecture)

    def to_record(self) -> dict[str, Any]:
        """JSON-able dictionary of every option."""
        return {**dataclasses.asdict(self), "pseudo": list(self.pseudo)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_record`.

        Raises
        ------
        WeightsError
            If an option is missing, unknown, or has a value it cannot have.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if set(record) != names:
            raise WeightsError(
                "design of an EMR-Diff model: expected "
                f"{', '.join(sorted(names))}; got {', '.join(sorted(map(str, record)))}"
            )
        try:
            values = {**record, "pseudo": tuple(record["pseudo"]), "kappa": float(record["kappa"])}
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise WeightsError(f"design of an EMR-Diff model: {error}") from None


_CHOICES = {
    "architecture": tuple(ARCHITECTURES),
    "residual": RESIDUALS,
    "noise": NOISES,
    "start": STARTS,
}
