"""The Python interface: open, simulate, estimate, fuse, evaluate, save.

Everything the command line and the graphical front end do goes through here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import cube as cubes
from ._assess import assess
from ._estimate import Responses, find_responses
from ._fuse import expected_cost, fuse, iter_fuse
from ._observe import as_image, make_pair
from ._simulate import SimulatedPair, simulate
from .errors import PairError, ParameterError
from .io import open_cube, save_cube

__all__ = [
    "Responses",
    "SimulatedPair",
    "assess",
    "compare",
    "estimate_responses",
    "evaluate",
    "expected_cost",
    "fuse",
    "iter_fuse",
    "methods",
    "open_cube",
    "save_cube",
    "simulate",
]


def methods() -> list[dict[str, Any]]:
    """Every method with its presets and parameters.

    Returns
    -------
    list of dict
        JSON-able: ``name``, ``title``, ``description``, ``default_preset``,
        ``presets`` (name to parameter values) and ``parameters`` (``name``,
        ``type``, ``optional``, ``default``, ``low``, ``high``, ``choices``,
        ``unit``, ``tooltip``, ``applies``).
    """
    from .engine.methods import get_method, method_names

    rows = []
    for name in method_names():
        method = get_method(name)
        rows.append(
            {
                "name": method.name,
                "title": method.title,
                "description": method.description,
                "default_preset": method.default_preset,
                "presets": {key: p.to_record() for key, p in method.presets.items()},
                "parameters": [
                    {
                        "name": spec.name,
                        "type": spec.type.__name__,
                        "optional": spec.optional,
                        "default": spec.default,
                        "low": spec.low,
                        "high": spec.high,
                        "choices": list(spec.choices),
                        "unit": spec.unit,
                        "tooltip": spec.tooltip,
                        "applies": {key: list(v) for key, v in spec.applies.items()},
                    }
                    for spec in method.params.describe()
                ],
            }
        )
    return rows


def estimate_responses(
    lr_hsi: Any,
    hr_msi: Any,
    scale: int | None = None,
    psf: Any = "estimate",
    srf: Any = "estimate",
) -> Responses:
    """Estimate the responses of a pair from the pair itself.

    Parameters
    ----------
    lr_hsi, hr_msi : xarray.DataArray, array_like of shape (band, y, x), or path
    scale : int, optional
        Ratio of the resolutions; checked against the sizes.
    psf, srf : optional
        One that is known; ``estimate`` for one that is not. None takes what is
        stored with the images.

    Returns
    -------
    Responses
        ``psf``, ``srf``, ``gain`` and a JSON-able ``record``; :func:`fuse` takes it
        as its `srf`.

    Raises
    ------
    PairError
        If sizes or bands do not fit.
    ResponseError
        If a given response is malformed, or the pair does not determine one.
    """
    return find_responses(make_pair(lr_hsi, hr_msi, scale), psf, srf)


def evaluate(
    reference: Any,
    estimate: Any,
    scale: float | None = None,
    convention: str = "hsfusion",
    mask: Any = None,
    clip: bool = True,
) -> dict[str, Any]:
    """Measure a cube against its reference.

    Parameters
    ----------
    reference, estimate : xarray.DataArray, array_like of shape (C, H, W), or path
        In one unit. Bands that either marks as bad, or that are empty, and pixels
        without a value in either, have no part.
    scale : float, optional
        Ratio of the resolutions, for ERGAS; by default what the estimate's record says.
    convention : str
        ``hsfusion``, ``args-diff`` or ``emr-diff``.
    mask : array_like of bool, shape (H, W), optional
        True where a pixel is to be left out.
    clip : bool
        Whether values of the estimate beyond the reference's range (from its minimum,
        or 0 if that is lower, to its maximum) count as the range's ends, as the
        published evaluations do.

    Returns
    -------
    dict
        Of :func:`napari_hsfusion.metrics.evaluate`: ``psnr`` (dB), ``sam`` (degrees,
        or radians by the convention), ``ergas``, ``ssim``, ``uiqi`` and more; and
        ``bands_used``, ``bands``, ``clipped_values``.

    Raises
    ------
    PairError
        If the shapes differ.
    ParameterError
        If the scale is not known, or the convention is not.
    """
    from . import metrics

    truth = as_image(reference, "reference")
    guess = as_image(estimate, "estimate")
    if truth.shape != guess.shape:
        raise PairError(
            f"the reference has shape (band, y, x) {truth.shape}, the estimate {guess.shape}"
        )
    if scale is None:
        scale = guess.attrs.get("record", {}).get("scale")
        if scale is None:
            raise ParameterError("scale: the estimate does not say; give the ratio (--scale)")
    used = cubes.good_bands(truth) & cubes.good_bands(guess)
    first, second = (cubes.to_physical(c, np.float64) for c in (truth, guess))
    for values in (first, second):
        used &= np.isfinite(values).any(axis=(1, 2))
    if not used.any():
        raise PairError("reference and estimate: no band is good and has values in both")
    first, second = first[used], second[used]
    clipped = 0
    if clip:
        low, high = min(0.0, float(np.nanmin(first))), float(np.nanmax(first))
        clipped = int(((second < low) | (second > high)).sum())
        second = np.clip(second, low, high)
    measured = metrics.evaluate(first, second, scale, convention=convention, mask=mask)
    return {
        **measured,
        "bands_used": int(used.sum()),
        "bands": int(used.size),
        "clipped_values": clipped,
    }


def compare(
    estimates: Mapping[str, Any],
    reference: Any,
    scale: float | None = None,
    convention: str = "hsfusion",
    mask: Any = None,
    clip: bool = True,
) -> list[dict[str, Any]]:
    """Measure several cubes against one reference.

    Parameters
    ----------
    estimates : mapping of str to cube, array or path
    reference, scale, convention, mask, clip
        As :func:`evaluate` takes them.

    Returns
    -------
    list of dict
        One row an estimate, in order: ``name`` and what :func:`evaluate` returns.

    Raises
    ------
    PairError, ParameterError
        As :func:`evaluate` raises them.
    """
    truth = as_image(reference, "reference")
    return [
        {"name": name, **evaluate(truth, guess, scale, convention, mask, clip)}
        for name, guess in estimates.items()
    ]
