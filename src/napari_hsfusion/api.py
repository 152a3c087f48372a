"""The Python interface: open, simulate, estimate, fuse, evaluate, save.

Everything the command line and the graphical front end do goes through here.
"""

from __future__ import annotations

from typing import Any

from ._assess import assess, consistency
from ._estimate import Responses, find_responses
from ._evaluate import compare, error_map, evaluate
from ._fuse import expected_cost, fuse, iter_fuse, preset_params
from ._observe import make_pair
from ._provenance import verify
from ._regions import RegionSpectrum, pixel_spectrum, region_spectrum
from ._reproduce.interface import iter_reproduce, reproduce
from ._script import as_script
from ._simulate import SimulatedPair, simulate
from ._train import iter_train, train
from ._uncertainty import deviation_cube, deviation_map
from .io import open_cube, save_cube

__all__ = [
    "RegionSpectrum",
    "Responses",
    "SimulatedPair",
    "as_script",
    "assess",
    "compare",
    "consistency",
    "deviation_cube",
    "deviation_map",
    "error_map",
    "estimate_responses",
    "evaluate",
    "expected_cost",
    "fuse",
    "iter_fuse",
    "iter_reproduce",
    "iter_train",
    "methods",
    "open_cube",
    "pixel_spectrum",
    "preset_params",
    "region_spectrum",
    "reproduce",
    "save_cube",
    "simulate",
    "train",
    "verify",
]


def methods() -> list[dict[str, Any]]:
    """Every method with its presets and parameters.

    Returns
    -------
    list of dict
        JSON-able: ``name``, ``title``, ``description``, ``default_preset``,
        ``trains`` (networks that a folder can keep), ``samples`` (can be drawn for a
        deviation), ``presets`` (name to parameter values) and ``parameters``
        (``name``, ``type``, ``optional``, ``default``, ``low``, ``high``,
        ``choices``, ``unit``, ``tooltip``, ``applies``, ``unless``).
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
                "trains": method.trains,
                "samples": method.sampling_estimator is not None,
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
                        "unless": {key: list(v) for key, v in spec.unless.items()},
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
