"""What the user chose on the plugin's page of napari's preferences."""

from __future__ import annotations

import os
from dataclasses import dataclass

from napari.settings import get_plugin_settings

PLUGIN = "napari-hsfusion"


@dataclass(frozen=True)
class Settings:
    """Preferences of the plugin.

    Attributes
    ----------
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N``.
    preset : str
        Preset that the form starts with, where the method has it.
    previews_per_second : float
        Most redraws a second while a fusion runs.
    cpu_threads : int
        Threads of a fusion on the CPU; 0 leaves one core to the window.
    """

    device: str = "auto"
    preset: str = "balanced"
    previews_per_second: float = 3.0
    cpu_threads: int = 0

    @property
    def threads(self) -> int:
        """CPU threads in numbers: at least one, and one less than there are cores."""
        return self.cpu_threads or max(1, (os.cpu_count() or 1) - 1)


def read_settings() -> Settings:
    """Read the preferences; the defaults where napari knows none of this plugin."""
    try:
        page = get_plugin_settings(PLUGIN).fusion
    except (KeyError, AttributeError):
        return Settings()
    return Settings(
        device=str(page.device).strip() or "auto",
        preset=str(page.preset),
        previews_per_second=float(page.previews_per_second),
        cpu_threads=int(page.cpu_threads),
    )
