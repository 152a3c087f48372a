"""The manifest is valid, everything in it can be imported, and napari finds the right part."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

import pytest

pytest.importorskip("npe2", reason="napari is not installed (extra 'all')")

from npe2 import PluginManager, PluginManifest
from npe2.manifest.utils import import_python_name

PATH = Path(str(files("napari_hsfusion") / "napari.yaml"))
NAME = "napari-hsfusion"
ENVI = {".hdr", ".img", ".dat", ".bsq", ".bil", ".bip"}


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_file(PATH)


@pytest.fixture
def plugins(manifest: PluginManifest) -> PluginManager:
    """A manager that knows napari's own readers and writers, and this plugin's."""
    manager = PluginManager()
    (own,) = (e for e in entry_points(group="napari.manifest") if e.name == "napari_builtins")
    module, _, name = own.value.partition(":")
    manager.register(PluginManifest.from_file(Path(str(files(module) / name))))
    manager.register(manifest)
    return manager


def test_npe2_validates_it_with_its_imports() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", str(PATH), "--imports"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "valid" in done.stdout


def test_name_and_commands(manifest: PluginManifest) -> None:
    assert manifest.name == NAME
    commands = manifest.contributions.commands or []
    assert commands
    for command in commands:
        assert command.id.startswith(f"{NAME}.")
        assert callable(import_python_name(command.python_name)), command.id
    used = {
        item.command
        for group in ("readers", "writers", "widgets", "sample_data")
        for item in getattr(manifest.contributions, group) or []
    }
    menus = manifest.contributions.menus or {}
    used |= {i.command for items in menus.values() for i in items if hasattr(i, "command")}
    assert used == {command.id for command in commands}
    assert "schema_version" not in PATH.read_text()


def test_every_form_is_a_widget_and_in_the_menu(manifest: PluginManifest) -> None:
    forms = ["Simulate", "Fuse", "Compare", "Train", "Spectrum"]
    widgets = manifest.contributions.widgets or []
    assert [widget.display_name for widget in widgets] == forms
    menu = (manifest.contributions.menus or {})["hyperspectral_fusion"]
    assert [item.command for item in menu] == [widget.command for widget in widgets]


def test_the_entry_point_leads_to_it() -> None:
    found = [e for e in entry_points(group="napari.manifest") if e.name == NAME]
    assert [e.value for e in found] == ["napari_hsfusion:napari.yaml"]


@pytest.mark.parametrize("extension", sorted(ENVI | {".tif", ".tiff", ".mat"}))
def test_one_layer_goes_to_a_writer_of_one(plugins: PluginManager, extension: str) -> None:
    """`image` and `image+` both fit a single layer: the first must win."""
    one, path = plugins.get_writer(f"a{extension}", ["image"], NAME)
    assert one is not None
    assert "each" not in one.command
    assert path == f"a{extension}"
    several, _ = plugins.get_writer(f"a{extension}", ["image", "image"], NAME)
    assert several is not None
    assert several.command.endswith("_each")
    expected = (
        "envi" if extension in ENVI else "geotiff" if extension.startswith(".t") else "matlab"
    )
    assert one.command == f"{NAME}.write_{expected}"
    assert several.command == f"{NAME}.write_{expected}_each"


def test_writers_take_images_alone(plugins: PluginManager) -> None:
    for kinds in (["labels"], ["points"], ["image", "labels"], ["shapes", "image"]):
        ours = [w for w in plugins.iter_compatible_writers(kinds) if w.plugin_name == NAME]
        assert ours == []
    assert plugins.get_writer("a", ["image"], NAME)[1] == "a.hdr"


@pytest.mark.parametrize(
    "name",
    [
        "a.hdr",
        "A.HDR",
        "a.img",
        "b.DAT",
        "x.y.bsq",
        "a.bil",
        "a.bip",
        "a.raw",
        "a.bin",
        "a.img.gz",
        "a.mat",
        "a.MAT",
        "a.tif",
        "a.TIFF",
        "a.gtif",
        "a.gtiff",
        "a.btf",
        "a.tf8",
    ],
)
def test_files_that_are_offered(plugins: PluginManager, name: str) -> None:
    readers = {reader.plugin_name for reader in plugins.iter_compatible_readers([name])}
    assert NAME in readers


def test_files_that_are_not_offered(plugins: PluginManager, tmp_path: Path) -> None:
    for name in ("a.png", "a.zarr", "a.csv", "a.npy", str(tmp_path)):
        readers = {reader.plugin_name for reader in plugins.iter_compatible_readers([name])}
        assert NAME not in readers
