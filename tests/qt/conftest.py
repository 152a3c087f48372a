"""Fixtures of the graphical tests."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def preferences_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preferences of plugins are at their defaults, and are neither read from nor saved to disk."""
    napari_settings = pytest.importorskip("napari.settings")
    monkeypatch.setattr(napari_settings, "_PLUGIN_SETTINGS", {})
    napari_settings.get_plugin_settings(path_dir=None)


@pytest.fixture
def messages() -> Generator[list[str], None, None]:
    """Every notification that napari shows during the test, in order."""
    from napari.utils.notifications import notification_manager

    shown: list[str] = []

    def keep(notification: Any) -> None:
        shown.append(str(notification.message))

    notification_manager.notification_ready.connect(keep)
    yield shown
    notification_manager.notification_ready.disconnect(keep)
    notification_manager.records.clear()
