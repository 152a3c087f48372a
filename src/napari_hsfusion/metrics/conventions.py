"""Named conventions: each metric as this package, or each paper, computes it.

========  =====================================  ============================  ============
metric    ``"hsfusion"``                         ``"args-diff"``               ``"emr-diff"``
========  =====================================  ============================  ============
psnr      mean over bands of                     as ``hsfusion``               one MSE over
          10 log10(max(ref_b)²/MSE_b)                                          the cube, peak
                                                                               max(ref)
sam       degrees, cosine clipped, zero          degrees, cosine not clipped,  radians
          reference spectra left out             zero spectra nudged by 1e-4
ergas     (100/scale)·sqrt(mean(MSE_b/mean_b²))  as ``hsfusion``               scale 4 always
ssim      per band, Gaussian σ 1.5, range of     per band, 7×7 uniform, range  multi-scale
          the reference band                     of the estimated band         SSIM
uiqi      Wang-Bovik, 32×32                      a library's, see              not computed
                                                 :func:`.band_library_uiqi`
q2n       Garzelli-Nencini, 32×32                not computed                  not computed
========  =====================================  ============================  ============

The two papers' conventions serve to compare with their tables; report
``hsfusion``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import CubeError, ParameterError
from ._pair import (
    Pair,
    UndefinedMetricError,
    WindowSizeError,
    as_array,
    as_mask,
    check_scale,
    prepare,
)
from .hypercomplex import pair_q2n
from .reference import (
    band_means,
    band_psnr,
    cube_psnr,
    mean_defined,
    pair_ergas,
)
from .spectral_angle import spectral_angles, zero_spectra
from .windows import band_library_uiqi, band_ssim, band_uiqi, pair_ms_ssim

Convention = Literal["hsfusion", "args-diff", "emr-diff"]

_EMR_SCALE = 4.0


@dataclass(frozen=True)
class MetricInfo:
    """What a metric's number means.

    Attributes
    ----------
    key : str
        Its key in the result of :func:`evaluate`.
    label : str
        Its name for a table.
    unit : str
        ``"dB"``, ``"deg"``, ``"rad"``, ``"%"``, or ``"1"`` for none.
    higher_is_better : bool
        Whether a larger number is a better one.
    """

    key: str
    label: str
    unit: str
    higher_is_better: bool


_Metric = tuple[MetricInfo, Callable[[Pair, float], float]]


def _band_psnr(pair: Pair, _scale: float) -> float:
    return mean_defined(band_psnr(pair), "PSNR", "no reference band has a value above 0")


def _sam(*, clip: bool, zero: str, factor: float) -> Callable[[Pair, float], float]:
    def compute(pair: Pair, _scale: float) -> float:
        angles = spectral_angles(pair, clip=clip, zero=zero)
        return mean_defined(angles * factor, "SAM", "no pixel has a spectral angle")

    return compute


def _ssim(*, window: str, data_range: str) -> Callable[[Pair, float], float]:
    def compute(pair: Pair, _scale: float) -> float:
        bands = band_ssim(pair, window=window, data_range=data_range)
        return mean_defined(bands, "SSIM", "every reference band is constant")

    return compute


_PSNR = MetricInfo("psnr", "PSNR", "dB", True)
_SAM = MetricInfo("sam", "SAM", "deg", False)
_ERGAS = MetricInfo("ergas", "ERGAS", "%", False)
_SSIM = MetricInfo("ssim", "SSIM", "1", True)
_UIQI = MetricInfo("uiqi", "UIQI", "1", True)
_DEGREE = float(np.degrees(1.0))

_TABLE: dict[str, tuple[_Metric, ...]] = {
    "hsfusion": (
        (_PSNR, _band_psnr),
        (_SAM, _sam(clip=True, zero="mask", factor=_DEGREE)),
        (_ERGAS, pair_ergas),
        (_SSIM, _ssim(window="gaussian", data_range="reference")),
        (_UIQI, lambda pair, _scale: float(band_uiqi(pair, 32).mean())),
        (MetricInfo("q2n", "Q2n", "1", True), lambda pair, _scale: pair_q2n(pair, 32)),
    ),
    "args-diff": (
        (_PSNR, _band_psnr),
        (_SAM, _sam(clip=False, zero="nudge", factor=_DEGREE)),
        (_ERGAS, pair_ergas),
        (_SSIM, _ssim(window="uniform", data_range="estimate")),
        (
            MetricInfo("uiqi", "UIQI (library)", "1", True),
            lambda pair, _scale: float(band_library_uiqi(pair).mean()),
        ),
    ),
    "emr-diff": (
        (_PSNR, lambda pair, _scale: cube_psnr(pair)),
        (MetricInfo("sam", "SAM", "rad", False), _sam(clip=True, zero="mask", factor=1.0)),
        (
            MetricInfo("ergas", "ERGAS (scale 4)", "%", False),
            lambda pair, _scale: pair_ergas(pair, _EMR_SCALE),
        ),
        (MetricInfo("ssim", "MS-SSIM", "1", True), lambda pair, _scale: pair_ms_ssim(pair)),
    ),
}

CONVENTIONS = tuple(_TABLE)
"""Names of the conventions, the default first."""


def metric_infos(convention: str = "hsfusion") -> dict[str, MetricInfo]:
    """The metrics of a convention in the order of its table, by key.

    Raises
    ------
    ParameterError
        If there is no such convention.
    """
    return {info.key: info for info, _ in _rows(convention)}


def units(convention: str = "hsfusion") -> dict[str, str]:
    """Unit of every metric of a convention, by key.

    Raises
    ------
    ParameterError
        If there is no such convention.
    """
    return {key: info.unit for key, info in metric_infos(convention).items()}


def evaluate(
    reference: Any,
    estimate: Any,
    scale: float,
    convention: str = "hsfusion",
    mask: Any = None,
    *,
    target: Literal["sharp", "emr-blurred"] = "sharp",
) -> dict[str, float]:
    """Score an estimate against its reference under a named convention.

    Pixels that are NaN or infinite in any band of either image, or True in
    `mask`, are left out of everything. Nothing is clipped: an estimate outside
    the reference's range is scored as it is.

    Parameters
    ----------
    reference, estimate : array_like or xarray.DataArray, shape (band, y, x)
        Same shape and units, any real type.
    scale : float
        Ratio of the LR to the HR pixel size, above 0. Enters ERGAS alone; the
        ``emr-diff`` convention takes 4 there whatever the task's is.
    convention : {"hsfusion", "args-diff", "emr-diff"}
        See the table of this module.
    mask : array_like of bool, shape (y, x), optional
        True where a pixel is to be left out.
    target : {"sharp", "emr-blurred"}
        What to score against: the reference (the default, and the only choice
        outside the ``emr-diff`` convention), or the reference after a 3×3
        Gaussian of σ 2, as the EMR-Diff paper's figures were computed: its
        loader blurs the cube before it serves as the ground truth. Scores
        against a blurred target do not compare with others.

    Returns
    -------
    dict of str to float
        The convention's metrics (:func:`metric_infos` has names and units),
        then counts: ``masked_pixels``; ``zero_spectra`` and
        ``zero_spectra_estimate``, the unmasked pixels that are zero in every
        band; ``undefined_angles``, the unmasked pixels without a spectral angle
        under this convention, which its mean leaves out; and the reference bands
        left out of a mean: ``peakless_bands`` (no value above 0, PSNR per band),
        ``zero_mean_bands`` (ERGAS), ``constant_bands`` (SSIM per band).

    Raises
    ------
    PairError
        If the shapes differ.
    CubeError
        If an image is malformed or no pixel is left.
    ParameterError
        If `scale`, `convention` or `target` is out of range.

    Warns
    -----
    UserWarning
        If a metric has no value for this pair, such as SSIM when every window
        touches a masked pixel, or a side is shorter than the convention's windows
        (11 pixels; ``args-diff`` 9; ``emr-diff`` 161). Its number is NaN then.
    """
    out: dict[str, float] = {}
    for score in iter_scores(reference, estimate, scale, convention, mask, target=target):
        out.update(score.values)
        if score.note:
            warnings.warn(score.note, UserWarning, stacklevel=2)
    return out


@dataclass(frozen=True)
class Score:
    """One step of an evaluation.

    Attributes
    ----------
    values : dict of str to float
        One metric by its key; in the last step the counts.
    note : str
        Why the metric has no value, where it is NaN.
    done : float
        Share of the steps that are done, above 0, at most 1.
    """

    values: dict[str, float]
    note: str
    done: float


def iter_scores(
    reference: Any,
    estimate: Any,
    scale: float,
    convention: str = "hsfusion",
    mask: Any = None,
    *,
    target: Literal["sharp", "emr-blurred"] = "sharp",
) -> Iterator[Score]:
    """Score an estimate metric by metric; what :func:`evaluate` collects.

    Parameters
    ----------
    reference, estimate, scale, convention, mask, target
        As :func:`evaluate` takes them.

    Yields
    ------
    Score
        One a metric in the order of the convention's table, then the counts.

    Raises
    ------
    PairError, CubeError, ParameterError
        As :func:`evaluate` raises them, before the first step.
    """
    rows = _rows(convention)
    factor = check_scale(scale)
    if target not in ("sharp", "emr-blurred"):
        raise ParameterError(f"target: expected 'sharp' or 'emr-blurred', got {target!r}")
    if target == "emr-blurred":
        if convention != "emr-diff":
            raise ParameterError(
                "target: 'emr-blurred' is offered under convention 'emr-diff' alone, "
                f"got convention {convention!r}"
            )
        reference = emr_blurred(reference, mask)
    pair = prepare(reference, estimate, mask)
    for number, (info, compute) in enumerate(rows, start=1):
        note = ""
        try:
            value = compute(pair, factor)
        except (UndefinedMetricError, WindowSizeError) as error:
            value, note = float("nan"), f"no value: {error}"
        yield Score({info.key: value}, note, number / (len(rows) + 1))
    yield Score(_counts(pair, convention), "", 1.0)


def emr_blurred(reference: Any, mask: Any = None) -> np.ndarray:
    """The target that the EMR-Diff paper's figures were computed against.

    Parameters
    ----------
    reference : array_like, shape (band, y, x)
        The sharp reference, sides of at least 2 pixels.
    mask : array_like of bool, shape (y, x), optional
        True where a pixel is to be left out.

    Returns
    -------
    numpy.ndarray, shape (band, y, x), float64
        After a 3×3 Gaussian, σ 2, border by reflection without repeating the
        edge; NaN where the kernel touches a masked or non-finite pixel.

    Raises
    ------
    CubeError
        If the image or the mask is malformed or a side is below 2.
    """
    sharp = as_array(reference, "reference").astype(np.float64)
    if min(sharp.shape[1:]) < 2:
        raise CubeError(f"reference: expected sides of at least 2, got {sharp.shape[1:]}")
    if mask is not None:
        sharp[:, as_mask(mask, sharp.shape[1:])] = np.nan
    sharp[~np.isfinite(sharp)] = np.nan
    kernel = np.exp(-(np.array([-1.0, 0.0, 1.0]) ** 2) / (2 * 2.0**2))
    kernel /= kernel.sum()
    out = np.empty_like(sharp)
    for number, band in enumerate(sharp):
        wide = np.pad(band, 1, mode="reflect")
        rows = kernel[0] * wide[:-2] + kernel[1] * wide[1:-1] + kernel[2] * wide[2:]
        out[number] = kernel[0] * rows[:, :-2] + kernel[1] * rows[:, 1:-1] + kernel[2] * rows[:, 2:]
    return out


def _counts(pair: Pair, convention: str) -> dict[str, float]:
    zero_reference, zero_estimate = zero_spectra(pair)
    nudged = convention == "args-diff"
    angles = spectral_angles(pair, clip=not nudged, zero="nudge" if nudged else "mask")
    extremes = [(a.min(), a.max()) for a, _ in pair.pixels()]
    return {
        "masked_pixels": pair.masked_pixels,
        "zero_spectra": zero_reference,
        "zero_spectra_estimate": zero_estimate,
        "undefined_angles": int(np.isnan(angles).sum()),
        "peakless_bands": sum(bool(high <= 0) for _, high in extremes),
        "zero_mean_bands": int((band_means(pair) == 0).sum()),
        "constant_bands": sum(bool(low == high) for low, high in extremes),
    }


def _rows(convention: str) -> tuple[_Metric, ...]:
    if convention not in _TABLE:
        raise ParameterError(
            f"convention: expected one of {', '.join(CONVENTIONS)}, got {convention!r}"
        )
    return _TABLE[convention]
