"""What the experiments of ARGS-Diff vary, and the figures that its authors report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ParameterError

EXPERIMENTS = ("args-diff-argm", "args-diff-curves", "args-diff-rho", "args-diff-resources")
"""Experiments of the paper that need no training set."""

ARGM, DIMENSIONS, STEPS, RHO, RESOURCES = "argm", "d", "T", "rho", "resources"
"""Names of the tables."""

CITED = (
    "Zhu et al., *Self-Learning Hyperspectral and Multispectral Image Fusion via Adaptive Residual "
    "Guided Subspace Diffusion Model*, CVPR 2025"
)
"""Where the published figures are from."""

FULL = "full"
"""Name of the setting that nothing is changed in."""

PUBLISHED_STEPS = (30_000, 400_000)
"""Training steps of the spatial and the spectral network in the authors' runs."""

RHOS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07)
"""Guidance steps of the paper's grid, of the coefficients and of the basis alike."""


@dataclass(frozen=True)
class Row:
    """One setting of a table.

    Attributes
    ----------
    label : str
        As the table shows it.
    changes : mapping
        Parameters that differ from the study's own.
    method, preset : str
        What is run.
    """

    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    method: str = "args-diff"
    preset: str = "paper"

    @property
    def name(self) -> str:
        """Name of the setting, whatever table it is in."""
        if self.changes:
            return "_".join(f"{key}-{str(value).lower()}" for key, value in self.changes.items())
        if self.method != "args-diff":
            return self.method
        return FULL if self.preset == "paper" else self.preset


@dataclass(frozen=True)
class Published:
    """Figures of the authors, in their convention.

    Attributes
    ----------
    dataset, label : str
        What they are of.
    figures : mapping
        ``psnr`` (dB), ``sam`` (degrees), ``ergas``, ``ssim``, ``seconds`` of sampling,
        ``parameters``, ``bytes``: those that are reported.
    """

    dataset: str
    label: str
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Table:
    """One table or curve of the paper.

    Attributes
    ----------
    name : str
        As it is asked for; also of its files.
    title, heading : str
        Above the table, and above the column of the settings.
    place : str
        Where the paper has it.
    rows : tuple of Row
    varied : tuple of str
        Parameters that its rows set.
    published : tuple of Published
    """

    name: str
    title: str
    heading: str
    place: str
    rows: tuple[Row, ...]
    varied: tuple[str, ...]
    published: tuple[Published, ...]


def _argm() -> tuple[Published, ...]:
    found = {
        "Pavia University": ((41.86, 2.75, 11), (42.33, 2.64, 12)),
        "Chikusei": ((41.33, 1.89, 11), (41.90, 1.77, 12)),
        "KSC": ((43.02, 2.70, 11), (43.63, 2.54, 13)),
    }
    return tuple(
        Published(dataset, label, {"psnr": psnr, "sam": sam, "seconds": seconds})
        for dataset, pair in found.items()
        for label, (psnr, sam, seconds) in zip(("w/o ARGM", "w/ ARGM"), pair, strict=True)
    )


# rows: rho1, columns: rho2, as in RHOS
_RHO_PSNR = (
    (33.70, 38.96, 34.09, 36.88, 34.67, 35.07, 31.84),
    (40.75, 40.69, 40.82, 41.15, 41.41, 41.50, 40.73),
    (41.35, 41.55, 41.71, 41.57, 41.59, 41.91, 41.80),
    (41.75, 41.89, 41.77, 41.93, 41.90, 42.10, 41.69),
    (41.72, 42.00, 42.13, 42.25, 42.33, 42.27, 41.67),
    (41.66, 41.97, 42.13, 42.15, 42.23, 42.11, 41.95),
    (41.67, 41.80, 41.97, 42.19, 42.14, 41.78, 41.94),
)

_PAVIA = "Pavia University"
_OURS = {"psnr": 42.33, "sam": 2.64, "ergas": 1.49, "ssim": 0.977, "seconds": 12}

_TABLES = {
    ARGM: Table(
        ARGM,
        "Ablation study of the adaptive residual guided module",
        "sampling",
        "Table 4",
        (Row("w/o ARGM", {"argm": False}), Row("w/ ARGM")),
        ("argm",),
        _argm(),
    ),
    DIMENSIONS: Table(
        DIMENSIONS,
        "Sensitivity to the subspace dimensions d",
        "d",
        "Figure 5",
        tuple(Row(str(d), {"d": d}) for d in range(1, 11)),
        ("d",),
        (Published(_PAVIA, "8", _OURS),),
    ),
    STEPS: Table(
        STEPS,
        "Sensitivity to the sampling steps T",
        "T",
        "Figure 5",
        tuple(Row(str(t), {"T": t}) for t in range(100, 1001, 100)),
        ("T",),
        (Published(_PAVIA, "500", _OURS),),
    ),
    RHO: Table(
        RHO,
        "Sensitivity to the guidance steps ρ1 and ρ2",
        "ρ1, ρ2",
        "Table 5",
        tuple(Row(f"{a:g}, {b:g}", {"rho1": a, "rho2": b}) for a in RHOS for b in RHOS),
        ("rho1", "rho2"),
        tuple(
            Published(_PAVIA, f"{a:g}, {b:g}", {"psnr": psnr})
            for a, line in zip(RHOS, _RHO_PSNR, strict=True)
            for b, psnr in zip(RHOS, line, strict=True)
        ),
    ),
    RESOURCES: Table(
        RESOURCES,
        "Parameters, memory and time",
        "method",
        "Table 6",
        (
            Row("args-diff, paper"),
            Row("args-diff, balanced", preset="balanced"),
            Row("args-diff, fast", preset="fast"),
            Row("subspace", method="subspace", preset=""),
            Row("bicubic", method="bicubic", preset=""),
        ),
        (),
        (
            Published(
                _PAVIA,
                "PLRDiff",
                {"psnr": 40.11, "parameters": 391.05e6, "bytes": 6.21e9, "seconds": 79},
            ),
            Published(
                _PAVIA,
                "S2CycleDiff",
                {"psnr": 38.77, "parameters": 606.44e6, "bytes": 23.34e9, "seconds": 297},
            ),
            Published(_PAVIA, "ARGS-Diff", {**_OURS, "parameters": 21.85e6, "bytes": 2.11e9}),
        ),
    ),
}

_OF = {
    "args-diff-argm": (ARGM,),
    "args-diff-curves": (DIMENSIONS, STEPS),
    "args-diff-rho": (RHO,),
    "args-diff-resources": (RESOURCES,),
}


def tables_of(experiment: str, names: Iterable[str] | None = None) -> tuple[Table, ...]:
    """Tables of an experiment.

    Parameters
    ----------
    experiment : str
        Of :data:`EXPERIMENTS`.
    names : iterable of str, optional
        Some of its tables; all without.

    Raises
    ------
    ParameterError
        If a name is none of this experiment, comes twice, or there is none.
    """
    known = _OF[experiment]
    wanted = list(known if names is None else names)
    for name in wanted:
        if name not in known:
            raise ParameterError(
                f"tables: {experiment} expected some of {', '.join(known)}, got {name!r}"
            )
    if not wanted or len(set(wanted)) != len(wanted):
        raise ParameterError(f"tables: expected each name once, got {', '.join(wanted) or 'none'}")
    return tuple(_TABLES[name] for name in known if name in wanted)


def all_table_names() -> tuple[str, ...]:
    """Names of the tables of every experiment."""
    return tuple(_TABLES)
