"""What may end one design of a study without ending the study."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ..errors import DeviceError, TrainingError


class FailedRun(Exception):
    """A training or a sampling came to nothing; the text goes into the record."""


@contextmanager
def noting_failures() -> Iterator[None]:
    """Turn what a diverging or too large run ends with into :class:`FailedRun`.

    Everything else, a bug or a wrong argument, passes as it is.

    Raises
    ------
    FailedRun
        On a diverged training, a singular matrix, or memory that does not suffice.
    """
    try:
        yield
    except (TrainingError, DeviceError) as error:
        raise FailedRun(str(error)) from error
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        raise FailedRun("the memory does not suffice") from error
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise FailedRun(f"a system of equations has no solution: {error}") from error
    except RuntimeError as error:
        if _NO_MEMORY not in str(error):
            raise
        raise FailedRun("the memory does not suffice") from error


_NO_MEMORY = "can't allocate memory"  # torch's allocator on the CPU has no error of its own


def check_finite(values: np.ndarray) -> None:
    """Make sure that a result has no value beyond the numbers.

    Parameters
    ----------
    values : ndarray
        Those that are to be scored.

    Raises
    ------
    FailedRun
        Saying how many are not finite.
    """
    bad = int(np.size(values) - np.count_nonzero(np.isfinite(values)))
    if bad:
        raise FailedRun(f"diverged: {bad} of {np.size(values)} values of the result are not finite")
