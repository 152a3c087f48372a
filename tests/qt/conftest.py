"""What the tests in a window share: the messages shown, and sessions driven as by hand."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

PLUGIN = "napari-hsfusion"
PATIENCE = 60  # seconds, for machines that have other things to do


class Message(str):
    """Text of a notification.

    Attributes
    ----------
    severity : str
        ``info``, ``warning`` or ``error``.
    raw : bool
        Whether napari made it of an exception that nobody caught.
    """

    severity = ""
    raw = False

    @classmethod
    def of(cls, notification: Any) -> Message:
        from napari.utils.notifications import ErrorNotification

        made = cls(notification.message)
        made.severity = str(notification.severity)
        made.raw = isinstance(notification, ErrorNotification)
        return made


@pytest.fixture(autouse=True)
def what_is_imported_is_no_garbage() -> None:
    """The collector passes over what there was before the test: modules, above all.

    napari collects with every layer that goes and with every window, each time through a
    million objects. What a test makes is collected as ever.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def manifests_read_once() -> Generator[None, None, None]:
    """What is installed stays the same: npe2 reads it once, not with every test and window.

    Each reader gets copies of its own.
    """
    npe2 = pytest.importorskip("npe2")
    find = npe2.PluginManifest.discover
    found: list[Any] = []

    def copies(paths: Sequence[str | Path] = ()) -> Generator[Any, None, None]:
        if paths:
            yield from find(paths)
            return
        if not found:
            found.extend(find())
        for manifest, *origin in found:
            yield type(found[0])(manifest and manifest.model_copy(deep=True), *origin)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(npe2.PluginManifest, "discover", copies)
        yield


@pytest.fixture(autouse=True)
def preferences_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preferences of plugins are at their defaults, and are neither read from nor saved to disk."""
    napari_settings = pytest.importorskip("napari.settings")
    monkeypatch.setattr(napari_settings, "_PLUGIN_SETTINGS", {})
    napari_settings.get_plugin_settings(path_dir=None)


@pytest.fixture
def messages() -> Generator[list[Message], None, None]:
    """Notifications that napari shows during the test, the oldest first."""
    from napari.utils.notifications import notification_manager

    shown: list[Message] = []

    def keep(notification: Any) -> None:
        shown.append(Message.of(notification))

    notification_manager.records.clear()
    notification_manager.notification_ready.connect(keep)
    yield shown
    notification_manager.notification_ready.disconnect(keep)
    notification_manager.records.clear()


@dataclass(frozen=True)
class State:
    """What a run that came to nothing must leave as it was."""

    layers: tuple[Any, ...]
    docks: tuple[str, ...]
    bars: int
    workers: int


class Session:
    """A viewer and the plugin's forms in it, docked under the names of the manifest.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Seen through napari's proxy, as plugins see it.
    qtbot
    messages : list of Message
    """

    LEARNT: ClassVar[dict[str, float]] = {"weight": 0.5, "d": 4}

    def __init__(self, viewer: Any, qtbot: Any, messages: list[Message]) -> None:
        self.viewer = viewer
        self.qtbot = qtbot
        self.messages = messages

    @property
    def names(self) -> list[str]:
        """Names of the layers, the lowest first."""
        return [layer.name for layer in self.viewer.layers]

    @property
    def main_window(self) -> Any:
        """napari's own window, for what a user does there by hand."""
        return self.viewer.__wrapped__.window._qt_window

    def dock(self, title: str) -> Any:
        """Form of the plugin's menu; the same one if it is there already."""
        return self.viewer.window.add_plugin_dock_widget(PLUGIN, title, True)[1]

    def open(self, path: Path) -> list[Any]:
        """Open a file with our reader, as if it had been chosen in napari's dialog."""
        return list(self.viewer.open(str(path), plugin=PLUGIN))

    def drop(self, *paths: Path) -> None:
        """Drop files on the window."""
        self.main_window._qt_viewer._qt_open([str(path) for path in paths], stack=False)

    def save(self, layer: Any, path: Path) -> list[Path]:
        """Save one layer; the extension chooses among all of napari's writers."""
        self.viewer.layers.selection = {layer}
        return [Path(file) for file in self.viewer.layers.save(str(path), selected=True)]

    def until(self, done: Callable[[], bool]) -> None:
        """Let the window live until something has happened."""
        self.qtbot.waitUntil(done, timeout=PATIENCE * 1000)

    def finish(self, form: Any) -> None:
        """Wait until a form's run is over and everything has followed it."""
        self.until(lambda: not form.running)
        self.settle()

    def settle(self) -> None:
        """Wait until no worker of any form is at work."""
        from napari.qt.threading import WorkerBase

        self.qtbot.wait(60)  # forms gather questions before they ask
        self.until(lambda: not WorkerBase._worker_set)
        self.qtbot.wait(20)

    def state(self) -> State:
        """What there is now."""
        from napari.qt.threading import WorkerBase
        from napari.utils import progress

        self.settle()
        bare = [getattr(layer, "__wrapped__", layer) for layer in self.viewer.layers]
        layers = tuple(
            (one.name, id(one), id(one.data), one.visible, tuple(one.scale), tuple(one.translate))
            for one in bare
        )
        return State(
            layers,
            tuple(self.viewer.window.dock_widgets),
            len(progress._all_instances),
            len(WorkerBase._worker_set),
        )

    # -- bad input

    def add_pair(self, pair: Any) -> None:
        """Add the layers HR and LR of a simulated pair."""
        from napari_hsfusion._layers import band_layer, composite_layer

        layers = composite_layer(pair.hr_msi, "HR"), band_layer(pair.lr_hsi, "LR")
        for data, words, _ in layers:
            self.viewer.add_image(data, **words)

    @contextmanager
    def said_once(self, words: str) -> Generator[None, None, None]:
        """What happens inside gives one message, with these words, and changes nothing."""
        before, already = self.state(), len(self.messages)
        yield
        assert self.state() == before
        (message,) = self.messages[already:]
        assert words in message
        assert not message.raw
        assert "Traceback" not in message

    def learn(self, form: Any, steps: int) -> None:
        """Have a network trained and used, though a small pair is better off without one."""
        form.method.value = "args-diff"
        for name, value in self.LEARNT.items():
            form.params.set_value(name, value)
        form.params.set_value("spatial_steps", steps)

    def goes_on(self, pair: Any) -> None:
        """A good run succeeds afterwards, in the same forms."""
        from napari.utils import progress

        from napari_hsfusion import api
        from napari_hsfusion._layers import layer_cube
        from napari_hsfusion._qt.responses import STORED

        self.viewer.layers.clear()
        self.add_pair(pair)
        form = self.dock("Fuse")
        form.lr_hsi.value, form.hr_msi.value = self.viewer.layers["LR"], self.viewer.layers["HR"]
        form.responses.source.value = STORED
        form.method.value = "subspace"
        already = len(self.messages)
        assert form.run() is not None, form.summary.text()
        self.finish(form)
        alone = api.fuse(pair.lr_hsi, pair.hr_msi, method="subspace")
        np.testing.assert_array_equal(layer_cube(self.viewer.layers[-1]).values, alone.values)
        assert self.messages[already:] == []
        assert list(progress._all_instances) == []


@pytest.fixture
def make_session(
    make_napari_viewer_proxy: Any, qtbot: Any, messages: list[Message]
) -> Callable[..., Session]:
    """Function that opens a window, which no other thread may touch."""

    def make(show: bool = True) -> Session:
        viewer = make_napari_viewer_proxy(show=show)
        viewer.window.resize(900, 600)  # drawn without a graphics card
        return Session(viewer, qtbot, messages)

    return make


@pytest.fixture
def session(make_session: Callable[..., Session]) -> Session:
    """An open window."""
    return make_session()
