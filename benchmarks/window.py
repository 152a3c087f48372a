"""What a window costs a fusion, and a fusion a window; both in one process, turn by turn.

The same run is drained without a window's loop, and by the Fuse form's worker while the
window draws what is watched. Times are taken where the engine's events are made.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from .accuracy import machine

SRF = "gaussian:480/70,560/60,660/60,835/120"
STAGES = {"train": "train spatial network", "sample": "sample"}


class Clock:
    """Stands in for ``api.iter_fuse`` and notes when each step was done."""

    def __init__(self, iter_fuse: Any) -> None:
        self._iter_fuse = iter_fuse
        self.steps: dict[str, list[float]] = {}
        self.begun = self.ended = 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Generator[Any, None, Any]:
        """Fuse as ``iter_fuse`` does."""
        from napari_hsfusion.engine.events import Step

        self.steps = {}
        self.begun = time.perf_counter()
        events = self._iter_fuse(*args, **kwargs)
        try:
            while True:
                try:
                    event = next(events)
                except StopIteration as stop:
                    self.ended = time.perf_counter()
                    return stop.value
                if isinstance(event, Step):
                    self.steps.setdefault(event.stage, []).append(time.perf_counter())
                yield event
        finally:
            events.close()

    def seconds(self) -> dict[str, float]:
        """Seconds of the whole run, and from the first step to the last of each stage."""
        out = {"run": self.ended - self.begun}
        for name, stage in STAGES.items():
            times = self.steps.get(stage, [])
            if len(times) > 1:
                out[name] = times[-1] - times[0]
        return out


def measure(size: int, bands: int, repeats: int, watch: str, settings: dict[str, Any]) -> dict:
    """Run by turns; see the module.

    Returns
    -------
    dict
        ``alone`` and ``window``: seconds of every repeat by stage; ``ratio``: median
        over median; ``longest_gap_ms``: longest time without an answer from the
        window's loop, from the first event of a run to its result; ``start_ms``: that
        of the press of Run, when napari adds two layers.
    """
    import torch

    from napari_hsfusion import api
    from napari_hsfusion._qt.settings import read_settings
    from napari_hsfusion.scene import demo_scene

    pair = api.simulate(demo_scene(size, bands), 4, "bicubic", SRF, 35.0, 0)
    clock = Clock(api.iter_fuse)
    threads = read_settings().threads
    form, app = _open(pair, watch, settings)
    out: dict[str, Any] = {"alone": [], "window": [], "longest_gap_ms": [], "start_ms": []}
    api.iter_fuse = clock  # type: ignore[assignment]
    before = torch.get_num_threads()
    try:
        for _ in range(repeats):
            torch.set_num_threads(threads)
            for _event in clock(pair.lr_hsi, pair.hr_msi, params=settings):
                pass
            torch.set_num_threads(before)
            out["alone"].append(clock.seconds())
            gaps = _run_in_window(form, app)
            out["window"].append(clock.seconds())
            out["start_ms"].append(gaps[0])
            out["longest_gap_ms"].append(gaps[1])
    finally:
        api.iter_fuse = clock._iter_fuse  # type: ignore[assignment]
        form._viewer.close()
    out["ratio"] = {
        stage: median(r[stage] for r in out["window"]) / median(r[stage] for r in out["alone"])
        for stage in out["alone"][0]
    }
    from napari_hsfusion.engine.methods.base import versions

    return {
        "shape": [bands, size, size],
        "watch": watch,
        "settings": settings,
        "threads": threads,
        "versions": versions(),
        **out,
    }


def _open(pair: Any, watch: str, settings: dict[str, Any]) -> tuple[Any, Any]:
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_hsfusion._layers import band_layer, composite_layer
    from napari_hsfusion._qt.fuse import FuseWidget

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1280, 800)
    for data, words, _ in (composite_layer(pair.hr_msi, "HR"), band_layer(pair.lr_hsi, "LR")):
        viewer.add_image(data, **words)
    form = FuseWidget(viewer)
    viewer.window.add_dock_widget(form, name="Fuse")
    for name, value in settings.items():
        form.params.set_value(name, value)
    form.watch.value = watch
    app = QApplication.instance()
    _loop(app, 1.0)
    return form, app


def _run_in_window(form: Any, app: Any) -> tuple[float, float]:
    from qtpy.QtCore import QEventLoop, Qt, QTimer

    ticks: list[float] = []
    timer = QTimer()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.setInterval(20)
    timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
    pressed = time.perf_counter()
    form.run()
    app.processEvents()
    start = time.perf_counter() - pressed
    timer.start()
    while form.running:
        app.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
    timer.stop()
    if form.job.state.value != "finished":
        raise RuntimeError(f"the run in the window ended as {form.job.state.value}")
    _loop(app, 0.3)
    viewer = form._viewer
    for layer in list(viewer.layers)[2:]:
        viewer.layers.remove(layer)
    _loop(app, 0.5)
    return round(start * 1e3, 1), round(float(np.diff(ticks).max()) * 1e3, 1)


def _loop(app: Any, seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        app.processEvents()
        time.sleep(0.002)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the JSON, whole or not at all."""
    document = {"benchmark": "window", "machine": machine(), "rows": rows}
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
