"""Whole numbers from callers: seeds and ratios."""

from __future__ import annotations

from typing import Any

from .errors import ParameterError

LARGEST_SEED = 2**63 - 1
"""Every generator of random numbers in use takes seeds up to this one."""


def whole_number(value: Any, name: str, low: int, high: int | None = None) -> int:
    """Return a whole number as an int.

    Parameters
    ----------
    value : int, or anything equal to one (2.0, a NumPy scalar)
    name : str
        Named in the message.
    low, high : int
        Ends of the range; without `high` it is open.

    Raises
    ------
    ParameterError
        If it is no number, a bool, no whole number or out of range.
    """
    try:
        number = int(value)
        whole = not isinstance(value, bool | str | bytes) and bool(number == value)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole or number < low or (high is not None and number > high):
        span = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ParameterError(f"{name}: expected a whole number {span}, got {value!r}")
    return number


def seed_from_text(text: str) -> int:
    """Return a seed that was typed in.

    Raises
    ------
    ParameterError
        If it is no whole number from 0 to 2**63 - 1.
    """
    try:
        return checked_seed(int(text))
    except ValueError as error:
        raise ParameterError(
            f"seed: expected a whole number from 0 to {LARGEST_SEED}, got {text!r}"
        ) from error


def checked_seed(seed: Any) -> int:
    """Return a seed as an int.

    Raises
    ------
    ParameterError
        If it is no whole number from 0 to 2**63 - 1.
    """
    return whole_number(seed, "seed", 0, LARGEST_SEED)
