"""Whether deviations are right: errors of fused cubes against what samples said of them.

Pairs are those of :mod:`.accuracy`. Every figure is taken with the calibration that a run
makes by itself, and without it. What the reference holds of noise of its own is in its
errors, and no fusion can foresee it: its level is estimated from the reference (every
band regressed on all others), and the coverage is given with it allowed for as well.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, spearmanr

from .accuracy import machine

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

NOMINAL = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_BINS = 10


def measure(
    pair: Path, method: str, preset: str | None, samples: int, seed: int, device: str
) -> dict[str, Any]:
    """Fuse a pair with samples, and compare deviations and errors.

    Returns
    -------
    dict
        ``calibrated`` and ``plain`` (:func:`_fit`), the ``calibration``, the rank
        correlations ``spearman`` (of all values) and ``spearman_map`` (of the pixels'
        root mean squares over the bands), the ``bins`` of the calibrated deviations, and
        ``seconds`` and ``uncertainty_seconds``.
    """
    from napari_hsfusion import api, make_cube
    from napari_hsfusion.engine.events import Step
    from napari_hsfusion.engine.spread import STAGE

    with np.load(pair) as data:
        z, x, y, response = (data[key] for key in ("Z", "X", "Y", "R"))
        scale, psf, centres = int(data["scale"]), str(data["psf"]), data["wavelengths"]
    told: list[float] = []

    def notice(event: object) -> None:
        if not (isinstance(event, Step) and event.stage == STAGE):
            told.append(time.perf_counter())

    low = make_cube(x, wavelength=centres)
    options: dict[str, Any] = {"scale": scale, "psf": psf, "srf": response, "seed": seed}
    options |= {"method": method, "preset": preset, "device": device}
    begun = time.perf_counter()
    fused = api.fuse(low, y, samples=samples, progress=notice, **options)
    ended = time.perf_counter()
    record = fused.attrs["record"]
    error = np.abs(fused.values.astype(float) - z)
    deviation = fused.coords["deviation"].values.astype(float)
    noise = reference_noise(z)[:, None, None]
    calibration = record.get("calibration")
    plain = None if calibration is None else deviation / _factors(y, **calibration)
    return {
        "scene": pair.stem,
        "shape": list(z.shape),
        "scale": scale,
        "method": method,
        "preset": record["preset"],
        "samples": samples,
        "device": record["device"],
        "device_name": record["name"],
        "threads": record.get("threads"),
        "versions": record["versions"],
        "calibration": calibration,
        "calibrated": _fit(error, deviation, noise),
        "plain": None if plain is None else _fit(error, plain, noise),
        "reference_noise": float(np.sqrt(np.mean(noise**2))),
        "spearman": float(spearmanr(deviation.ravel(), error.ravel())[0]),
        "spearman_map": float(spearmanr(_rms(deviation, 0).ravel(), _rms(error, 0).ravel())[0]),
        "bins": _bins(error, deviation),
        "seconds": ended - begun,
        "uncertainty_seconds": ended - told[-2],
    }


def _factors(y: npt.NDArray[np.floating], factor: float, contrast: float) -> Floats:
    """What every pixel's deviation was multiplied by, (H, W)."""
    import torch

    from napari_hsfusion.engine.calibration import contrast_shape

    return np.asarray(factor * contrast_shape(torch.as_tensor(y), contrast).numpy())


def reference_noise(z: npt.NDArray[np.floating]) -> Floats:
    """Deviation of the noise in every band (C,): what all other bands do not explain."""
    spectra = z.reshape(len(z), -1).astype(float)
    moments = spectra @ spectra.T / spectra.shape[1]
    floor = 1e-9 * np.trace(moments) / len(moments)
    return np.asarray(1 / np.sqrt(np.diag(np.linalg.inv(moments + floor * np.eye(len(moments))))))


def _fit(error: Floats, deviation: Floats, noise: Floats) -> dict[str, Any]:
    """Shares of errors within 1 and 2 deviations, and within every interval of NOMINAL."""
    ratio = error / np.maximum(deviation, 1e-12)
    with_noise = error / np.sqrt(deviation**2 + noise**2)
    reach = norm.ppf(0.5 + np.asarray(NOMINAL) / 2)
    return {
        "within_1": float(np.mean(ratio <= 1)),
        "within_2": float(np.mean(ratio <= 2)),
        "within_1_with_noise": float(np.mean(with_noise <= 1)),
        "within_2_with_noise": float(np.mean(with_noise <= 2)),
        "coverage": [float(np.mean(ratio <= r)) for r in reach],
        "rms_ratio": float(_rms(error) / _rms(deviation)),
    }


def _bins(error: Floats, deviation: Floats) -> list[dict[str, float]]:
    """Ten equal groups of values by their deviation: what it was, and what the error was."""
    order = np.argsort(deviation, axis=None)
    return [
        {
            "deviation": float(_rms(deviation.ravel()[part])),
            "error": float(_rms(error.ravel()[part])),
            "within_1": float(np.mean(error.ravel()[part] <= deviation.ravel()[part])),
        }
        for part in np.array_split(order, _BINS)
    ]


def _rms(values: Floats, axis: int | None = None) -> Floats:
    return np.asarray(np.sqrt(np.mean(values**2, axis=axis)))


def figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Plot errors against deviations in ten groups, and coverage with calibration and without."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(13, 4.6), layout="constrained")
    FigureCanvasAgg(made)
    left, right = made.subplots(1, 2)
    scenes = list(dict.fromkeys(row["scene"] for row in rows))
    runs = list(dict.fromkeys((row["method"], row["preset"]) for row in rows))
    for row in rows:
        colour = f"C{scenes.index(row['scene'])}"
        style = {"color": colour, "marker": "osv^Dx+*"[runs.index((row["method"], row["preset"]))]}
        name = f"{row['scene']}, {row['method']} {row['preset']}"
        groups = row["bins"]
        said, found = ([g[key] for g in groups] for key in ("deviation", "error"))
        left.loglog(said, found, ms=3.5, label=name, **style)
        right.plot(NOMINAL, row["calibrated"]["coverage"], ms=3.5, **style)
        if row["plain"] is not None:
            right.plot(NOMINAL, row["plain"]["coverage"], ":", lw=1, color=colour)
    ends = [g[k] for row in rows for g in row["bins"] for k in ("deviation", "error")]
    span = min(ends), max(ends)
    left.plot(span, span, "k--", lw=0.8)
    right.plot((0, 1), (0, 1), "k--", lw=0.8)
    left.set(xlabel="deviation, rms of a tenth", ylabel="error, rms", title="Errors where said")
    right.set(
        xlabel="share of a normal distribution",
        ylabel="share of errors",
        title="Coverage (dotted: not calibrated)",
    )
    made.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    return made


def write(path: Path, rows: Sequence[dict[str, Any]], seed: int) -> None:
    """Write all rows so far as JSON, and the plot beside it."""
    document = {"benchmark": "uncertainty", "nominal": NOMINAL, "seed": seed}
    document |= {"machine": machine(), "rows": list(rows)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    figure(rows).savefig(path.with_suffix(".png"), dpi=110)
