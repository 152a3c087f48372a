"""What a window costs a fusion, and a fusion a window; both in one process, turn by turn.

The same run is drained without a window's loop, and by the Fuse form's worker while the
window, which is on the screen, draws what is watched. Times are taken where the engine's
events are made, and with them, on Linux, how long that thread was ready to run and stood in
the queue for a core: where other programs have the cores, the rest says more. How long the
window does not answer is measured in runs of their own.
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
        self.steps: dict[str, list[tuple[float, float]]] = {}
        self.begun = self.ended = (0.0, 0.0)

    def __call__(self, *args: Any, **kwargs: Any) -> Generator[Any, None, Any]:
        """Fuse as ``iter_fuse`` does."""
        from napari_hsfusion.engine.events import Step
        from napari_hsfusion.engine.network_cache import forget_networks

        self.steps = {}
        self.begun = _now()
        forget_networks()  # every run trains
        events = self._iter_fuse(*args, **kwargs)
        try:
            while True:
                try:
                    event = next(events)
                except StopIteration as stop:
                    self.ended = _now()
                    return stop.value
                if isinstance(event, Step):
                    self.steps.setdefault(event.stage, []).append(_now())
                yield event
        finally:
            events.close()

    def seconds(self, queue: bool = True) -> dict[str, float]:
        """Seconds of the whole run, and from the first step to the last of each stage.

        Without what the thread stood in the queue for a core, where `queue` is false.
        """
        spans = {"run": (self.begun, self.ended)}
        for name, stage in STAGES.items():
            times = self.steps.get(stage, [])
            if len(times) > 1:
                spans[name] = times[0], times[-1]
        return {
            name: round(last[0] - first[0] - (0.0 if queue else last[1] - first[1]), 4)
            for name, (first, last) in spans.items()
        }


def _now() -> tuple[float, float]:
    """Time, and seconds that this thread has stood in the queue for a core (0: not known)."""
    path = Path("/proc/thread-self/schedstat")
    waited = int(path.read_text().split()[1]) / 1e9 if path.exists() else 0.0
    return time.perf_counter(), waited


def measure(size: int, bands: int, repeats: int, watch: str, settings: dict[str, Any]) -> dict:
    """Run by turns, after one run of each kind that does not count; see the module.

    Returns
    -------
    dict
        ``alone`` and ``window``: seconds of every repeat by stage; ``ratio``: median
        over median; the same with ``_unqueued``: less what the thread stood in the queue
        for a core; ``previews``: pictures drawn in every run in the window;
        ``start_ms``: how long the press of Run takes, when napari adds two layers;
        ``longest_gap_ms``: of two more runs, the longest time without an answer from
        the window's loop, from the first event to the result.
    """
    import torch

    from napari_hsfusion import api
    from napari_hsfusion._qt.settings import read_settings
    from napari_hsfusion.scene import demo_scene

    pair = api.simulate(demo_scene(size, bands), 4, "bicubic", SRF, 35.0, 0)
    clock = Clock(api.iter_fuse)
    chosen = read_settings()
    form = _open(pair, watch, settings)
    out: dict[str, list[Any]] = {
        name: []
        for name in (
            *("alone", "window", "alone_unqueued", "window_unqueued"),
            *("previews", "start_ms", "longest_gap_ms"),
        )
    }

    def alone() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(chosen.threads)
        for _event in clock(pair.lr_hsi, pair.hr_msi, params=settings):
            pass
        torch.set_num_threads(before)

    api.iter_fuse = clock  # type: ignore[assignment]
    try:
        alone()
        _run_in_window(form)
        for _ in range(repeats):
            alone()
            out["alone"].append(clock.seconds())
            out["alone_unqueued"].append(clock.seconds(queue=False))
            start, previews, _ = _run_in_window(form)
            out["window"].append(clock.seconds())
            out["window_unqueued"].append(clock.seconds(queue=False))
            out["start_ms"].append(start)
            out["previews"].append(previews)
        for _ in range(2):
            out["longest_gap_ms"].append(_run_in_window(form, 10)[2])
    finally:
        api.iter_fuse = clock._iter_fuse  # type: ignore[assignment]
        form._viewer.close()
    from napari_hsfusion.engine.methods.base import versions

    return {
        "shape": [bands, size, size],
        "watch": watch,
        "previews_per_second": chosen.previews_per_second,
        "settings": settings,
        "threads": chosen.threads,
        "versions": versions(),
        "ratio": _ratio(out["window"], out["alone"]),
        "ratio_unqueued": _ratio(out["window_unqueued"], out["alone_unqueued"]),
        **out,
    }


def _ratio(window: list[dict[str, float]], alone: list[dict[str, float]]) -> dict[str, float]:
    return {
        stage: round(median(r[stage] for r in window) / median(r[stage] for r in alone), 3)
        for stage in alone[0]
    }


def _open(pair: Any, watch: str, settings: dict[str, Any]) -> Any:
    import napari

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
    _loop(1.0)
    return form


def _run_in_window(form: Any, interval: int | None = None) -> tuple[float, int, float]:
    """Press Run, wait in Qt's own loop for the end, and take the result away again.

    Returns the milliseconds of the press, the pictures drawn, and the longest gap between
    ticks of a timer of so many milliseconds, where one is wanted.
    """
    from qtpy.QtCore import QEventLoop, Qt, QTimer

    from napari_hsfusion._qt.fusing import Snapshot

    ticks: list[float] = []
    pictures: list[int] = []
    loop, timer = QEventLoop(), QTimer()
    pressed = time.perf_counter()
    job = form.run()
    start = time.perf_counter() - pressed
    worker = job._worker
    worker.yielded.connect(lambda event: pictures.append(1) if isinstance(event, Snapshot) else 0)
    worker.finished.connect(loop.quit)
    if interval is not None:
        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
        worker.yielded.connect(lambda _: None if timer.isActive() else timer.start(interval))
    loop.exec()
    timer.stop()
    if job.state.value != "finished":
        raise RuntimeError(f"the run in the window ended as {job.state.value}")
    _loop(0.3)
    viewer = form._viewer
    for layer in list(viewer.layers)[2:]:
        viewer.layers.remove(layer)
    _loop(0.5)
    longest = float(np.diff(ticks).max()) * 1e3 if len(ticks) > 1 else 0.0
    return round(start * 1e3, 1), len(pictures), round(longest, 1)


def _loop(seconds: float) -> None:
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    QTimer.singleShot(int(seconds * 1000), loop.quit)
    loop.exec()


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the JSON, whole or not at all."""
    document = {"benchmark": "window", "machine": machine(), "rows": rows}
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
