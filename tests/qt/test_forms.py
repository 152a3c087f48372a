"""Forms come from the parameter classes; preferences are read where napari keeps them."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'pyqt6')")
pytest.importorskip("qtpy", reason="no Qt binding is installed")

from magicgui.widgets import CheckBox, ComboBox, LineEdit, SpinBox

from napari_hsfusion._qt.forms import ParamsForm
from napari_hsfusion._qt.settings import PLUGIN, Settings, read_settings
from napari_hsfusion.errors import ParameterError
from napari_hsfusion.params import ARGS_DIFF_PRESETS, BicubicParams, SubspaceParams

KINDS = (CheckBox, ComboBox, LineEdit, SpinBox)


@pytest.mark.parametrize("preset", list(ARGS_DIFF_PRESETS))
def test_every_parameter_is_there_with_its_value_tooltip_and_range(qapp: Any, preset: str) -> None:
    base = ARGS_DIFF_PRESETS[preset]
    form = ParamsForm(base)
    for spec in base.describe():
        field = form[spec.name]
        assert isinstance(field, KINDS)
        assert field.tooltip.startswith(spec.tooltip)
        if spec.unit:
            assert spec.unit in field.tooltip
        if isinstance(field, SpinBox):
            assert (field.min, field.max) == (spec.low, spec.high)
        elif spec.low is not None:
            assert f"{spec.low:g}" in field.tooltip
    assert form.changes() == {}


def test_changes_are_what_differs_and_is_read(qapp: Any) -> None:
    form = ParamsForm(ARGS_DIFF_PRESETS["balanced"])
    form.set_value("levels", 12)
    form.set_value("weight", 0.3)
    assert form.changes() == {"levels": 12, "weight": 0.3}
    form.set_value("weight", None)
    form.set_value("d", 6)
    assert form.changes() == {"levels": 12, "d": 6}
    assert "T" not in form.applicable
    form.set_value("sampler", "published")
    assert "levels" not in form.applicable
    assert {"T", "argm", "r"} <= set(form.applicable)
    form.set_value("argm", False)
    assert "r" not in form.applicable
    assert form.changes() == {"sampler": "published", "argm": False, "d": 6}


def test_hidden_fields_are_those_nothing_reads(qapp: Any) -> None:
    form = ParamsForm(ARGS_DIFF_PRESETS["balanced"])
    hidden = {spec.name for spec in form._specs.values() if form[spec.name].native.isHidden()}
    assert {"T", "rho1", "spectral_steps"} <= hidden
    assert not {"levels", "weight", "d"} & hidden


@pytest.mark.parametrize(
    ("name", "typed", "words"),
    [
        ("sigma_low", "much", "sigma_low"),
        ("sigma_low", "11", "at most|to 10"),
        ("d", "0", "d: expected"),
        ("weight", "-1", "weight"),
    ],
)
def test_what_does_not_fit_is_named(qapp: Any, name: str, typed: str, words: str) -> None:
    form = ParamsForm(ARGS_DIFF_PRESETS["balanced"])
    form.set_value(name, typed)
    with pytest.raises(ParameterError, match=words):
        form.changes()


def test_another_method_is_another_form(qapp: Any) -> None:
    edited: list[bool] = []
    form = ParamsForm(ARGS_DIFF_PRESETS["fast"])
    form.edited.connect(lambda: edited.append(True))
    form.load(SubspaceParams(classes=4))
    assert [widget.name for widget in form] == ["d", "classes", "iterations", "tolerance"]
    assert form["classes"].value == 4
    assert form["tolerance"].value == "1e-05"
    assert edited == [], "loading a preset is no edit"
    form.set_value("tolerance", "1e-6")
    assert edited == [True]
    assert form.changes() == {"tolerance": 1e-6}
    form.load(BicubicParams())
    assert len(form) == 0
    with pytest.raises(ParameterError, match="unknown parameter 'd'"):
        form.set_value("d", 3)


def test_preferences_are_those_of_the_page(make_napari_viewer_proxy: Any) -> None:
    import napari.settings
    from npe2 import PluginManager

    make_napari_viewer_proxy()
    manager = PluginManager.instance()
    manager.discover()
    assert PLUGIN in {manifest.name for manifest in manager.iter_manifests()}
    napari.settings._PLUGIN_SETTINGS.clear()
    napari.settings.get_plugin_settings(path_dir=None)
    assert read_settings() == Settings()
    page = napari.settings.get_plugin_settings(PLUGIN).fusion
    page.preset = "fast"
    page.cpu_threads = 3
    page.previews_per_second = 1.5
    page.device = "cpu"
    assert read_settings() == Settings("cpu", "fast", 1.5, 3)


def test_without_a_page_the_preferences_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    import napari.settings

    monkeypatch.setattr(napari.settings, "_PLUGIN_SETTINGS", {"another-plugin": object()})
    assert read_settings() == Settings()


def test_the_page_of_the_manifest_has_what_is_read() -> None:
    """Every preference is on the page, with the default that the code has."""
    from importlib.resources import files

    import yaml

    text = (files("napari_hsfusion") / "napari.yaml").read_text(encoding="utf-8")
    properties = yaml.safe_load(text)["contributions"]["configurations"]["fusion"]["properties"]
    defaults = {name: entry["default"] for name, entry in properties.items()}
    known = Settings()
    assert defaults == {name: getattr(known, name) for name in defaults}
    assert set(defaults) == {"device", "preset", "previews_per_second", "cpu_threads"}
    assert set(properties["preset"]["enum"]) == set(ARGS_DIFF_PRESETS)
