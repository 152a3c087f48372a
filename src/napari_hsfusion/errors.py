"""Every error the package raises on purpose.

None derives from ``RuntimeError``: worker threads of graphical front ends treat
a ``RuntimeError`` as "the window has gone" and swallow it.
"""

from __future__ import annotations

from collections.abc import Sequence


class HSFusionError(Exception):
    """Base class: the message says what was expected and what came."""


class CubeError(HSFusionError, ValueError):
    """A cube has the wrong shape, bands, wavelengths or values."""


class PairError(HSFusionError, ValueError):
    """Two images do not form a pair: sizes, bands or responses do not fit."""


class ResponseError(HSFusionError, ValueError):
    """A spectral response or point spread function is unknown or malformed."""


class ParameterError(HSFusionError, ValueError):
    """A parameter is unknown, out of range, or has no effect where it was set."""


class FormatError(HSFusionError, ValueError):
    """A file is not of a format, or of a variant, that can be read."""


class TruncatedFileError(FormatError):
    """A data file is shorter than its header says.

    Attributes
    ----------
    expected, found : int
        Sizes in bytes.
    """

    def __init__(self, path: object, expected: int, found: int) -> None:
        super().__init__(
            f"{path}: truncated data file: expected at least {expected} bytes, found {found} bytes"
        )
        self.expected = expected
        self.found = found


class VariableError(FormatError):
    """A file holds several variables and none, or a missing one, was named.

    Attributes
    ----------
    variables : tuple of str
        Descriptions of what the file does hold.
    """

    def __init__(self, message: str, variables: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.variables = tuple(variables)


class WriteError(HSFusionError, OSError):
    """An output could not be written; whatever stood there before still does."""


class DeviceError(HSFusionError):
    """The device asked for is absent, or its memory does not suffice."""


class WeightsError(HSFusionError, ValueError):
    """Saved networks are damaged, or belong to another kind of pair."""


class Cancelled(HSFusionError):
    """The run was cancelled; nothing was kept, but for the state of a training."""


class TrainingError(HSFusionError, ArithmeticError):
    """A training run diverged: its loss or its weights are no longer finite."""
