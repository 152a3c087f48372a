"""Parameter classes: conversion, ranges, presets, and settings that nothing would read."""

from __future__ import annotations

import dataclasses
import json

import pytest

from napari_hsfusion import params as registry
from napari_hsfusion.errors import ParameterError
from napari_hsfusion.params import (
    ARGS_DIFF_PRESETS,
    ArgsDiffParams,
    EmrDiffParams,
    Params,
    SubspaceParams,
)

CLASSES = [getattr(registry, n) for n in registry.__all__ if n.endswith("Params") and n != "Params"]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_parameter_is_described(kind: type[Params]) -> None:
    """Tooltip, and a range or choices for all but flags; defaults lie inside."""
    for spec in kind.describe():
        assert len(spec.tooltip) > 20, spec.name
        assert spec.tooltip.endswith("."), spec.name
        if spec.type in (int, float):
            assert spec.low is not None, spec.name
            assert spec.high is not None, spec.name
        if spec.type is str and not spec.optional:
            assert spec.choices, spec.name
        for other in (*spec.applies, *spec.unless):
            assert other in {s.name for s in kind.describe()}
    json.dumps(kind().to_record())


def test_text_is_converted() -> None:
    """Settings from a command line come as text."""
    made = ArgsDiffParams.from_settings(
        {"d": "6", "argm": "false", "rho1": "0.02", "guidance": "noise", "T": " 100 "}
    )
    assert (made.d, made.argm, made.rho1, made.guidance, made.T) == (6, False, 0.02, "noise", 100)
    balanced = ARGS_DIFF_PRESETS["balanced"]
    assert ArgsDiffParams.from_settings({"weight": "auto"}, balanced).weight is None
    assert ArgsDiffParams.from_settings({"weight": "0.5"}, balanced).weight == 0.5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("d", "0", "a whole number from 1 to 256 .dimensions., or auto, got '0'"),
        ("d", "2.5", "whole number"),
        ("d", 2.5, "whole number"),
        ("d", True, "whole number"),
        ("T", "auto", "whole number"),
        ("rho1", "nan", "a number from 0 to 10"),
        ("rho1", "much", "a number from 0 to 10"),
        ("argm", "maybe", "true or false"),
        ("guidance", "both", "one of sample, noise"),
        ("nothing", "1", "unknown parameter 'nothing'; known: d, "),
    ],
)
def test_bad_values_are_named(name: str, value: object, message: str) -> None:
    """The message says what was expected and what came."""
    with pytest.raises(ParameterError, match=message):
        ArgsDiffParams.from_settings({name: value})


def test_settings_that_nothing_reads_are_refused() -> None:
    """A parameter of the other sampler, or of a module that is off, is an error."""
    with pytest.raises(ParameterError, match="levels has no effect with sampler=published"):
        ArgsDiffParams.from_settings({"levels": 4})
    with pytest.raises(ParameterError, match="T has no effect with sampler=proximal"):
        ArgsDiffParams.from_settings({"T": 100}, ARGS_DIFF_PRESETS["balanced"])
    with pytest.raises(ParameterError, match="lambda2 has no effect with argm=false"):
        ArgsDiffParams.from_settings({"argm": False, "lambda2": 2})
    made = ArgsDiffParams.from_settings({"sampler": "proximal", "levels": 4})
    assert made.levels == 4
    file = {"weights": "w.safetensors"}
    words = "weights has no effect with train_on=pair and fine_tune=false"
    with pytest.raises(ParameterError, match=words):
        EmrDiffParams.from_settings({**file, "train_on": "pair"})
    assert EmrDiffParams.from_settings(file).weights == "w.safetensors"
    tuned = EmrDiffParams.from_settings({**file, "train_on": "pair", "fine_tune": "yes"})
    assert tuned.weights == "w.safetensors"


def test_published_defaults() -> None:
    """The published settings, as the paper's Section 4.2 gives them."""
    p = ARGS_DIFF_PRESETS["paper"]
    assert (p.T, p.d, p.lambda1, p.lambda2, p.rho1, p.rho2, p.r) == (500, 8, 1, 1, 0.05, 0.05, 10)
    assert (p.beta1, p.beta2, p.epsilon, p.argm) == (0.9, 0.999, 1e-8, True)
    assert (p.spatial_steps, p.spatial_batch, p.spatial_patch, p.spatial_stride) == (
        30_000,
        16,
        128,
        32,
    )


def test_frozen() -> None:
    """Nothing can be changed after validation."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        SubspaceParams().d = 3  # type: ignore[misc]
    with pytest.raises(ParameterError, match="tolerance"):
        dataclasses.replace(SubspaceParams(), tolerance=1.0)
