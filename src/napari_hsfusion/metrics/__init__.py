"""Quality of a fused cube, with and without a reference.

:func:`evaluate` scores an estimate against a reference under a named convention;
:func:`consistency` and :func:`hqnr` need the observed pair alone. Every metric is
also a function of its own. Arrays are (band, y, x); everything is computed in
float64, and nothing here needs torch.
"""

from ._pair import UndefinedMetricError, WindowSizeError
from .conventions import (
    CONVENTIONS,
    Convention,
    MetricInfo,
    emr_blurred,
    evaluate,
    metric_infos,
    units,
)
from .hypercomplex import q2n
from .no_reference import Consistency, consistency, d_lambda, d_s, hqnr, no_reference_infos
from .reference import (
    absolute_error_map,
    ergas,
    psnr,
    psnr_bands,
    rmse,
    rmse_bands,
    rmse_map,
)
from .spectral_angle import sam, sam_map
from .windows import ms_ssim, ssim, ssim_bands, uiqi, uiqi_bands

__all__ = [
    "CONVENTIONS",
    "Consistency",
    "Convention",
    "MetricInfo",
    "UndefinedMetricError",
    "WindowSizeError",
    "absolute_error_map",
    "consistency",
    "d_lambda",
    "d_s",
    "emr_blurred",
    "ergas",
    "evaluate",
    "hqnr",
    "metric_infos",
    "ms_ssim",
    "no_reference_infos",
    "psnr",
    "psnr_bands",
    "q2n",
    "rmse",
    "rmse_bands",
    "rmse_map",
    "sam",
    "sam_map",
    "ssim",
    "ssim_bands",
    "uiqi",
    "uiqi_bands",
    "units",
]
