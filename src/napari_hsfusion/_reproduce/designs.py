"""What EMR-Diff's ablation study varies, and the figures that its authors report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._training.design import make_config
from ..engine.emr.config import EmrConfig
from ..errors import ParameterError

METRICS = ("psnr", "ssim", "sam", "ergas")
"""What every table shows, in this order."""

PUBLISHED_ON = (
    "the authors' slides: Harvard, 2000 passes over 512 x 512 crops, scored against a reference "
    "that their loader had blurred"
)
"""Where the published figures come from."""

VARIED = ("residual", "noise", "T", "architecture", "pseudo")
"""Options of a design that a table sets."""

SHARED = ("start", "width", "kappa")
"""Options that all designs of a study share."""


@dataclass(frozen=True)
class Row:
    """One design of a table.

    Attributes
    ----------
    label : str
        As the paper names it.
    changes : mapping
        Options that differ from the full design, as :func:`~.design.make_config`
        takes them.
    published : tuple of float, or None
        The authors' figures in the order of :data:`METRICS`; SAM in radians.
    """

    label: str
    changes: Mapping[str, Any]
    published: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Table:
    """One table of the study.

    Attributes
    ----------
    name : str
        As it is asked for; also of its files.
    title, heading : str
        Above the table, and above its first column.
    rows : tuple of Row
    """

    name: str
    title: str
    heading: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Variant:
    """A design to be trained: each one once, whatever tables it is in.

    Attributes
    ----------
    name : str
        Of its files: ``full``, or the option that differs with its value.
    design : dict
        Options for :func:`~.design.make_config`.
    config : EmrConfig
    """

    name: str
    design: dict[str, Any] = field(hash=False)
    config: EmrConfig


_FULL = (49.28, 0.9990, 0.0233, 0.7800)

_FIXED = {
    "residual": Table(
        "residual",
        "Ablation study of the multimodal residual",
        "residual",
        (
            Row("none", {"residual": "none"}, (47.93, 0.9984, 0.0250, 0.8994)),
            Row("unimodal", {"residual": "unimodal"}, (48.46, 0.9986, 0.0241, 0.8025)),
            Row("multimodal", {}, _FULL),
        ),
    ),
    "noise": Table(
        "noise",
        "Ablation study of edge-aware noise",
        "noise",
        (
            Row("plain", {"noise": "plain"}, (48.36, 0.9986, 0.0245, 0.8198)),
            Row("edge-aware", {}, _FULL),
        ),
    ),
    "steps": Table(
        "steps",
        "Ablation study of the diffusion steps",
        "steps",
        (
            Row("3", {"T": 3}, (48.54, 0.9987, 0.0239, 0.8009)),
            Row("4", {"T": 4}, (48.70, 0.9988, 0.0237, 0.7890)),
            Row("5", {}, _FULL),
            Row("10", {"T": 10}, (48.89, 0.9988, 0.0236, 0.7882)),
        ),
    ),
    "network": Table(
        "network",
        "Ablation study of BAF-UNet",
        "network",
        (
            Row("UNet", {"architecture": "unet"}, (44.87, 0.9972, 0.0260, 0.9369)),
            Row("B-UNet", {"architecture": "b-unet"}, (48.22, 0.9983, 0.0244, 0.8637)),
            Row("AF-UNet", {"architecture": "af-unet"}, (48.63, 0.9986, 0.0237, 0.8024)),
            Row("BAF-UNet(S)", {"architecture": "baf-unet-s"}, (48.54, 0.9985, 0.0239, 0.8811)),
            Row("BAF-UNet", {}, _FULL),
        ),
    ),
}

_PSEUDO = {
    "29,30,31": (48.89, 0.9988, 0.0235, 0.7892),
    "1,15,31": (49.02, 0.9989, 0.0236, 0.7848),
    "1,2,3": _FULL,
}

TABLES = (*_FIXED, "pseudo")
"""Names of the tables, in the paper's order."""


def tables_for(names: Iterable[str], bands: int, msi_bands: int) -> tuple[Table, ...]:
    """Tables of the study for cubes of some kind.

    Parameters
    ----------
    names : iterable of str
        Of :data:`TABLES`.
    bands, msi_bands : int
        C and c; the pseudo-MSI is of the last c bands, of c bands from the first to the
        last, and of the first c.

    Raises
    ------
    ParameterError
        If a name is unknown, comes twice, or there is none.
    """
    wanted = list(names)
    for name in wanted:
        if name not in TABLES:
            raise ParameterError(f"tables: expected some of {', '.join(TABLES)}, got {name!r}")
    if not wanted or len(set(wanted)) != len(wanted):
        raise ParameterError(f"tables: expected each name once, got {', '.join(wanted) or 'none'}")
    known = {**_FIXED, "pseudo": _pseudo_table(bands, msi_bands)}
    return tuple(known[name] for name in TABLES if name in wanted)


def _pseudo_table(bands: int, msi_bands: int) -> Table:
    c = msi_bands
    first = [k % bands + 1 for k in range(c)]
    last = [(bands - c + k) % bands + 1 for k in range(c)]
    spread = [(bands + 1) // 2]
    if c > 1:  # rounded down: the middle of 31 is 15 in the paper
        spread = [min(bands, max(k + 1, k * bands // (c - 1))) for k in range(c)]
    texts = dict.fromkeys(",".join(map(str, chosen)) for chosen in (last, spread, first))
    printed = bands == 31
    rows = [
        Row(f"({text})", {"pseudo": text}, _PSEUDO.get(text) if printed else None) for text in texts
    ]
    return Table("pseudo", "Ablation study of the pseudo-MSI", "bands", tuple(rows))


def variants_of(
    tables: Sequence[Table], base: Mapping[str, Any], bands: int, msi_bands: int, ratio: int
) -> tuple[dict[str, Variant], dict[str, list[str]]]:
    """Every distinct design of some tables, and which one each row is.

    Parameters
    ----------
    tables : sequence of Table
    base : mapping
        Options that all designs share; none that a table varies.
    bands, msi_bands, ratio : int

    Returns
    -------
    variants : dict of str to Variant
        By name, the full design first.
    rows : dict of str to list of str
        Table name to the names of its rows' variants.

    Raises
    ------
    ParameterError
        If `base` has an option that a table sets, or that is unknown.
    """
    varied = [name for name in base if name in VARIED]
    if varied:
        raise ParameterError(
            f"design: {', '.join(varied)}: the tables set this; expected {', '.join(SHARED)} alone"
        )
    sizes = {"bands": bands, "msi_bands": msi_bands, "ratio": ratio}
    known: dict[str, Variant] = {}
    rows: dict[str, list[str]] = {}
    full = make_config(base, **sizes)
    by_config = {_key(full): "full"}
    known["full"] = Variant("full", dict(base), full)
    for table in tables:
        rows[table.name] = []
        for row in table.rows:
            design = {**base, **row.changes}
            config = make_config(design, **sizes)
            name = by_config.setdefault(_key(config), _name(row.changes))
            known.setdefault(name, Variant(name, design, config))
            rows[table.name].append(name)
    used = {name for names in rows.values() for name in names}
    return {name: variant for name, variant in known.items() if name in used}, rows


def _key(config: EmrConfig) -> str:
    return json.dumps(config.to_record(), sort_keys=True)


def _name(changes: Mapping[str, Any]) -> str:
    return "_".join(f"{key}-{str(value).replace(',', '-')}" for key, value in changes.items())
