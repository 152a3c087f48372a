"""One run from a pair of images to a fused cube; :mod:`.api` shows it to the world."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from ._estimate import check_units, find_responses
from ._numbers import checked_seed, whole_number
from ._observe import make_pair
from ._provenance import run_origins
from ._result import all_bands, result_cube, run_record
from ._uncertainty import with_deviation
from .errors import ParameterError
from .params import Params

if TYPE_CHECKING:
    from .engine.events import CancelToken, Event
    from .engine.methods.base import Method

METHOD = "args-diff"
"""Name of the default method."""


def iter_fuse(
    lr_hsi: Any,
    hr_msi: Any,
    *,
    method: str = METHOD,
    preset: str | None = None,
    scale: int | None = None,
    psf: Any = None,
    srf: Any = None,
    seed: int = 0,
    device: str = "auto",
    networks: str | os.PathLike[str] | None = None,
    samples: int = 0,
    params: Params | Mapping[str, Any] | None = None,
    cancel: CancelToken | None = None,
    **settings: Any,
) -> Generator[Event, None, xr.DataArray]:
    """Fuse a pair, yielding events; the generator returns the cube.

    The events are the method's own; bands in a
    :class:`~napari_hsfusion.engine.events.Preview` and in the
    :class:`~napari_hsfusion.engine.events.Finished` are those of the LR-HSI, bad
    ones included. Closing the generator at any point ends the run; nothing is
    read before its first event is asked for.

    Parameters
    ----------
    lr_hsi, hr_msi, method, preset, scale, psf, srf, seed, device, networks, samples, params, cancel
        As :func:`fuse` takes them.
    **settings
        Parameters of the method by name.

    Returns
    -------
    xarray.DataArray
        As :func:`fuse` returns it.

    Yields
    ------
    Event
        Started, Step, Preview, Notice, Finished.

    Raises
    ------
    HSFusionError
        As :func:`fuse` raises them.
    """
    from .engine.device import resolve_device
    from .engine.events import CancelToken, Finished, Preview
    from .engine.methods import get_method

    seed = checked_seed(seed)
    samples = whole_number(samples, "samples", 0)
    chosen = get_method(method)
    name, values = _parameters(chosen, preset, params, settings)
    chosen.check_samples(samples)
    where = resolve_device(device)
    token = cancel if cancel is not None else CancelToken()
    token.check()
    pair = make_pair(lr_hsi, hr_msi, scale)
    responses = find_responses(pair, psf, srf)
    check_units(pair, responses)
    token.check()
    observation = pair.observation(responses.psf, responses.matrix)
    run = chosen.run(
        observation,
        values,
        seed=seed,
        device=where,
        networks=None if networks is None else Path(networks),
        cancel=token,
        samples=samples,
        spare=resolve_device("cpu") if device == "auto" else None,
    )
    result: xr.DataArray | None = None
    try:
        for event in run:
            if isinstance(event, Finished):
                origins = run_origins(responses, psf, srf, networks)
                record = run_record(event, pair, responses, name, origins)
                result = result_cube(event.cube, record, pair, observation)
                if event.deviation is not None:
                    result = with_deviation(result, event.deviation, pair.bands_x)
                yield replace(event, cube=result.values, record=record)
            elif isinstance(event, Preview):
                yield all_bands(event, pair)
            else:
                yield event
    finally:
        run.close()
    if result is None:
        raise ParameterError(f"method {method!r} ended without a result")
    return result


def fuse(
    lr_hsi: Any,
    hr_msi: Any,
    *,
    method: str = METHOD,
    preset: str | None = None,
    scale: int | None = None,
    psf: Any = None,
    srf: Any = None,
    seed: int = 0,
    device: str = "auto",
    networks: str | os.PathLike[str] | None = None,
    samples: int = 0,
    params: Params | Mapping[str, Any] | None = None,
    progress: Callable[[Event], object] | None = None,
    cancel: CancelToken | None = None,
    **settings: Any,
) -> xr.DataArray:
    """Fuse a low-resolution hyperspectral and a high-resolution multispectral image.

    Parameters
    ----------
    lr_hsi : xarray.DataArray, array_like of shape (C, h, w), or path
        Bands that are marked as bad, or empty, are left out of the fusion; in the
        result they are interpolated, and still marked.
    hr_msi : xarray.DataArray, array_like of shape (c, H, W), or path
        In the same radiometric unit.
    method : str
        As :func:`~napari_hsfusion.api.methods` lists them.
    preset : str, optional
        Preset of the method; its default without one.
    scale : int, optional
        Ratio H / h; checked against the sizes.
    psf : str, array_like, path or PSF, optional
        ``bicubic``, ``gaussian:SIGMA``, ``gauss3-bicubic``, ``box``, a kernel or
        its file, or ``estimate``. By default what is stored with the images.
    srf : str, path, array_like of shape (c, C), Response or Responses, optional
        A sensor's name, a CSV file, a matrix, ``estimate``, or what
        :func:`~napari_hsfusion.api.estimate_responses` returned. By default what
        is stored with the images.
    seed : int
        The same seed gives the same cube, bit for bit on the CPU; at most 2**63 - 1.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N``. With ``auto`` a run that fits into no GPU
        goes to the CPU, and says so.
    networks : path, optional
        Folder of trained networks to reuse, or to keep them in.
    samples : int
        Samples to draw for the deviation of the result, at least 2; 0 for none. They do
        not change the cube.
    params : Params or mapping, optional
        All parameters of the method, in place of a preset; or those to change.
    progress : callable, optional
        Called with every event.
    cancel : CancelToken, optional
        Ends the run before its next step.
    **settings
        Parameters of the method by name, on top of the preset.

    Returns
    -------
    xarray.DataArray, shape (C, H, W), float32
        In the images' physical unit; NaN where the HR-MSI or the covering LR
        pixel is not known. Wavelengths and bad bands are the LR-HSI's, CRS and
        transform the HR-MSI's; ``attrs["record"]`` says how to repeat the run. With
        `samples` the coordinates ``deviation`` (C, H, W) and ``relative_deviation``
        (H, W) say how uncertain it is.

    Raises
    ------
    PairError
        If sizes, bands, units and responses do not fit.
    ResponseError
        If a response is neither given nor stored, or malformed.
    ParameterError
        If a method, preset or parameter is unknown or out of range, or the method has
        no samples to draw.
    DeviceError
        If the device is absent, or the memory does not suffice in any way.
    WeightsError
        If saved networks do not fit.
    Cancelled
        If `cancel` was set.
    """
    events = iter_fuse(
        lr_hsi,
        hr_msi,
        method=method,
        preset=preset,
        scale=scale,
        psf=psf,
        srf=srf,
        seed=seed,
        device=device,
        networks=networks,
        samples=samples,
        params=params,
        cancel=cancel,
        **settings,
    )
    try:
        while True:
            event = next(events)
            if progress is not None:
                progress(event)
    except StopIteration as stop:
        cube: xr.DataArray = stop.value
        return cube
    finally:
        events.close()


def expected_cost(
    shape_lr: tuple[int, ...],
    shape_hr: tuple[int, ...],
    *,
    method: str = METHOD,
    preset: str | None = None,
    device: str = "auto",
    samples: int = 0,
    params: Params | Mapping[str, Any] | None = None,
    **settings: Any,
) -> dict[str, float]:
    """Time and memory that a run is expected to take, from the sizes alone.

    Parameters
    ----------
    shape_lr : (C, h, w)
        Of the LR-HSI.
    shape_hr : (c, H, W)
        Of the HR-MSI.
    method, preset, device, samples, params
        As :func:`fuse` takes them.
    **settings
        Parameters of the method by name, on top of the preset.

    Returns
    -------
    dict
        ``seconds`` and ``bytes`` of working memory; where networks are trained also
        ``training_seconds`` and ``sampling_seconds``, and with `samples`
        ``uncertainty_seconds``.

    Raises
    ------
    ParameterError
        If a method, preset or parameter is unknown or out of range, or the method has
        no samples to draw.
    DeviceError
        If the device is absent.
    """
    from .engine.device import resolve_device
    from .engine.methods import get_method

    samples = whole_number(samples, "samples", 0)
    chosen = get_method(method)
    _, values = _parameters(chosen, preset, params, settings)
    where = resolve_device(device)
    return chosen.estimate(tuple(shape_lr), tuple(shape_hr), values, where, samples)


def preset_params(method: str = METHOD, preset: str | None = None) -> Params:
    """Parameters of a method's preset.

    Parameters
    ----------
    method : str
    preset : str, optional
        The method's default without one.

    Returns
    -------
    Params

    Raises
    ------
    ParameterError
        If the method or the preset is unknown.
    """
    from .engine.methods import get_method

    return _parameters(get_method(method), preset, None, {})[1]


def _parameters(
    method: Method[Any],
    preset: str | None,
    params: Params | Mapping[str, Any] | None,
    settings: Mapping[str, Any],
) -> tuple[str | None, Params]:
    changes: dict[str, Any] = dict(settings)
    if isinstance(params, Params):
        if preset is not None:
            raise ParameterError("give either preset or params, not both")
        if not isinstance(params, method.params):
            raise ParameterError(
                f"params: method {method.name!r} expected {method.params.__name__}, "
                f"got {type(params).__name__}"
            )
        base, name = params, None
    else:
        name = method.default_preset if preset is None else preset
        if name not in method.presets:
            known = ", ".join(method.presets)
            raise ParameterError(f"method {method.name!r}: unknown preset {name!r}; known: {known}")
        base = method.presets[name]
        changes = {**(params or {}), **changes}
    made: Params = method.params.from_settings(changes, base=base)
    return name, made
