"""The Python lines that repeat a training run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from .._script.text import Call, Source, quoted
from ..errors import CubeError

_SAME = ("scale", "psf", "srf", "seed", "device")


def train_script(options: Mapping[str, Any]) -> str:
    """Python source that trains as a form said.

    Parameters
    ----------
    options : mapping
        Keywords of :func:`napari_hsfusion.api.iter_train`.

    Raises
    ------
    CubeError
        If a layer's cube is in no file.
    """
    source = Source()
    source.comment("Trains the network that the Train form trained. An interrupted run goes on.")
    call = Call("hs.train", _data(options["data"]), quoted(options["out"]))
    if options["val"] is not None:
        call.add(val=_data(options["val"]))
    call.add(**{name: _text(options[name]) for name in _SAME}, resume="True")
    if options["init"] is not None:
        call.add(init=quoted(options["init"]))
    if options["design"]:
        call.add(design=repr(dict(options["design"])))
    call.add(**{name: _text(value) for name, value in options["params"].items()})
    source.line(f"trained = {call}")
    return source.text()


def _data(items: list[Path | xr.DataArray]) -> str:
    return f"[{', '.join(quoted(_path(item)) for item in items)}]"


def _path(item: Path | xr.DataArray) -> str:
    if isinstance(item, Path):
        return str(item)
    source = item.encoding.get("source")
    if source is None:
        raise CubeError(
            f"layer {str(item.name)!r} is in no file, so that a script cannot open it: save it, "
            "and train on the file"
        )
    return str(source)


def _text(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else repr(value)
