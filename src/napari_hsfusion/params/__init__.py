"""Parameters of every method: one frozen dataclass each, with range, unit and tooltip."""

from .args_diff import ARGS_DIFF_PRESETS, ArgsDiffParams
from .base import FieldSpec, Params, param
from .closed_form import BICUBIC_PRESETS, SUBSPACE_PRESETS, BicubicParams, SubspaceParams
from .emr_diff import EMR_DIFF_PRESETS, EmrDiffParams

__all__ = [
    "ARGS_DIFF_PRESETS",
    "BICUBIC_PRESETS",
    "EMR_DIFF_PRESETS",
    "SUBSPACE_PRESETS",
    "ArgsDiffParams",
    "BicubicParams",
    "EmrDiffParams",
    "FieldSpec",
    "Params",
    "SubspaceParams",
    "param",
]
