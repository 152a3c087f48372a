"""The Compare form: metrics in a table, maps of errors, layers side by side or in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import napari.viewer
from magicgui.widgets import ComboBox, Container, FloatSpinBox, PushButton
from napari.utils.notifications import show_warning

from ..metrics import CONVENTIONS, metric_infos, no_reference_infos
from . import measuring
from .comparing import (
    MAP_KINDS,
    RESIDUAL_KINDS,
    Observed,
    Plan,
    ReferenceChoice,
    Subject,
    Where,
    band_on_show,
    layers_of,
    map_name,
    recorded_scale,
    reference_rank,
    says_no_scale,
    tasks_of,
    whereabouts,
    worth_a_tick,
)
from .layer_checks import LayerChecks
from .layer_choice import LayerChoice, cube_or_none, shows_cube, shows_image
from .links import Links
from .maps import remove_maps, show_maps
from .measures import NO_REFERENCE, MeasuredRow, Measures
from .measuring import Gallery, Measured
from .pair import likely_hr, likely_lr
from .results_panel import ResultsPanel
from .rows import column, row
from .sideways import FormScroll, Sideways
from .view_row import ViewRow, beside
from .worker import Job, run_job

if TYPE_CHECKING:
    from napari.layers import Layer


class CompareWidget(Container):
    """Compare layers with a reference, with one another, or with the pair they came of.

    Parameters
    ----------
    viewer : napari.viewer.Viewer

    Attributes
    ----------
    job : Job or None
        The computation in progress, or the last one.
    checks : LayerChecks
        The layers that are compared.
    table : MeasuresTable
    view_row : ViewRow
        Layers side by side, or in turn.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self._viewer = viewer
        self._links = Links()
        self._names = Links()
        self.job: Job | None = None
        self._measured: dict[Layer, MeasuredRow] = {}
        self._against: Layer | None = None
        self._make_controls()
        self._arrange()
        self._connect()
        self._mode_changed()

    # -- what is in the form

    def _make_controls(self) -> None:
        self.reference = ReferenceChoice(
            self._viewer,
            shows_cube,
            lambda layer: reference_rank(layer, self._viewer.layers),
            label="Reference",
            tooltip="The truth, or the layer the others are compared with. Without one, results "
            "are compared with the pair they were made of.",
        )
        self.lr_hsi = LayerChoice(
            self._viewer,
            shows_cube,
            likely_lr,
            label="LR-HSI",
            tooltip="The low-resolution hyperspectral image that the results were made of.",
        )
        self.hr_msi = LayerChoice(
            self._viewer,
            shows_image,
            lambda layer: likely_hr(layer, self.lr_hsi.value),
            label="HR-MSI",
            tooltip="The high-resolution multispectral image that the results were made of.",
        )
        self.checks = LayerChecks(
            self._viewer, shows_cube, lambda layer: worth_a_tick(layer, self.reference.layer)
        )
        self.checks.setToolTip("Tick the layers to compare.")
        self.view_row = ViewRow(self._viewer, self._members)
        self.ratio = FloatSpinBox(
            value=4.0,
            min=1.0,
            max=1000.0,
            step=1.0,
            tooltip="Ratio of the resolutions, for ERGAS, of layers whose record does not say it.",
        )
        self.convention = ComboBox(
            choices=list(CONVENTIONS),
            tooltip="How the metrics are computed: this package's way, or that of either paper.",
        )
        self.compare_button = PushButton(text="Compare", tooltip="Fill the table.")
        self.cancel_button = PushButton(
            text="Cancel", tooltip="Stop; rows that are there already stay.", enabled=False
        )
        self.map_kind = ComboBox(
            # choices given as a list would come back whenever the widget gets another parent
            choices=lambda _: list(MAP_KINDS if self.reference.layer else RESIDUAL_KINDS),
            tooltip="What the maps show: root-mean-square error over the bands, absolute error of "
            "the band on show, or spectral angle in degrees.",
        )
        self.maps_button = PushButton(
            text="Show", tooltip="One map a ticked layer, all on one scale, over the layers."
        )
        self.remove_button = PushButton(text="Remove", tooltip="Remove all maps.")
        self.more_button = PushButton(text="▸ More", tooltip="Convention, rate of blinking.")

    def _arrange(self) -> None:
        self.more = column(
            [row("Convention", self.convention), row("Blink rate", self.view_row.rate)]
        )
        self.more.visible = False
        self.pair_rows = column([row("LR-HSI", self.lr_hsi), row("HR-MSI", self.hr_msi)])
        self.ratio_row = row("Ratio", self.ratio)
        ticks: Container = Container(labels=False)
        ticks.margins = (0, 0, 0, 0)
        ticks.native.layout().addWidget(self.checks)
        ticks.tooltip = self.checks.toolTip()
        self.form = Container(
            widgets=[
                row("Reference", self.reference),
                self.pair_rows,
                row("Layers", ticks),
                self.ratio_row,
                beside(self.compare_button, self.cancel_button),
                row("Maps", self.map_kind, beside(self.maps_button, self.remove_button)),
                self.view_row,
                self.more_button,
                self.more,
            ],
            labels=False,
        )
        self.form.margins = (0, 0, 4, 0)
        self.form.native.layout().addStretch(1)
        self.panel = ResultsPanel()
        self.table = self.panel.table
        layout = self.native.layout()
        self._scroll = FormScroll(self.form.native)
        layout.addWidget(self._scroll)
        layout.addWidget(self.panel, 1)
        self.native.setMinimumWidth(400)  # the kind of map in full, beside a scroll bar
        self._sideways = Sideways(self.native, self._scroll)

    def _connect(self) -> None:
        self.reference.changed.connect(self._mode_changed)
        self.lr_hsi.changed.connect(lambda _: self.hr_msi.refresh())
        self.checks.ticked.connect(self._members_changed)
        self.compare_button.changed.connect(self.compare)
        self.cancel_button.changed.connect(self.cancel)
        self.maps_button.changed.connect(self.show_maps)
        self.remove_button.changed.connect(self.remove_maps)
        self.more_button.changed.connect(self._toggle_more)
        self._links.connect(self._viewer.layers.events.removed, self._layer_removed)
        self.native_parent_changed.connect(self._moved)
        self.native.destroyed.connect(self._closed)

    # -- what it says

    @property
    def running(self) -> bool:
        """Whether something is being computed."""
        return self.job is not None and not self.job.over

    @property
    def measures(self) -> Measures:
        """What the table shows."""
        return self.panel.measures

    def subjects(self) -> list[Subject]:
        """The layers to compare, with what is known of them now; not the reference."""
        found = []
        for layer in reversed(self.checks.checked):
            cube = cube_or_none(layer)
            if cube is not None and layer != self.reference.layer:
                scale = recorded_scale(cube) or float(self.ratio.value)
                found.append(Subject(layer, layer.name, cube, scale))
        return found

    # -- what it does

    def compare(self, *_: object) -> Job | None:
        """Measure the ticked layers; None, and a warning, where nothing can be measured."""
        ready = self._ready()
        if ready is None:
            return None
        subjects, observed = ready
        self._names.clear()
        self._measured = {}
        self._against = self.reference.layer
        reference = cube_or_none(self.reference.layer)
        convention = self.convention.value
        if observed is None:
            assert reference is not None
            begun = Measures(
                tuple(metric_infos(convention).values()), convention, self.reference.layer.name
            )
            work: tuple[Any, ...] = (measuring.measure, tasks_of(subjects), reference, convention)
        else:
            names = f"{observed.lr_layer.name} and {observed.hr_layer.name}"
            begun = Measures(tuple(no_reference_infos().values()), NO_REFERENCE, names)
            work = (measuring.assess, tasks_of(subjects), observed.lr_hsi, observed.hr_msi)
        self.panel.begin(begun)
        for layer in (*(s.layer for s in subjects), self._against):
            if layer is not None:
                self._names.connect(layer.events.name, self._renamed)
        return self._start(
            *work,
            title="Comparing",
            on_event=lambda event: self._take_row(event, subjects, observed is None),
        )

    def show_maps(self, *_: object) -> Job | None:
        """Draw a map of every ticked layer, in place of earlier ones of that kind."""
        ready = self._ready()
        if ready is None:
            return None
        subjects, observed = ready
        of = str(self.map_kind.value)
        tasks = tasks_of(subjects)
        places: dict[str, Layer | None] = {"": None}
        if observed is None:
            reference = cube_or_none(self.reference.layer)
            assert reference is not None
            band = band_on_show(self._viewer, self.reference.layer) if of == "band" else None
            name = map_name(of, band, reference)
            work: tuple[Any, ...] = (measuring.draw, tasks, reference, of, band)
        else:
            name = map_name(of, None, None)
            places = {"hsi": observed.lr_layer, "msi": observed.hr_layer}
            work = (measuring.draw_residuals, tasks, observed.lr_hsi, observed.hr_msi, of)
        where = whereabouts(subjects, places)
        return self._start(
            *work,
            title="Drawing maps",
            on_event=self.panel.advance,
            on_result=lambda gallery: self._hang(gallery, subjects, where, Plan(of, name)),
        )

    def remove_maps(self, *_: object) -> int:
        """Remove every map; their number comes back."""
        gone = remove_maps(self._viewer)
        self.view_row.view.fit()
        return gone

    def cancel(self, *_: object) -> None:
        """Stop what is being computed."""
        if self.running:
            assert self.job is not None
            self.job.cancel()
            self.cancel_button.text = "Cancelling…"
            self.cancel_button.enabled = False

    def _ready(self) -> tuple[list[Subject], Observed | None] | None:
        if self.running:
            show_warning("Comparing: wait for what is being computed, or cancel it.")
            return None
        subjects = self.subjects()
        if not subjects:
            show_warning("Comparing: tick at least one layer besides the reference.")
            return None
        if self.reference.layer is not None:
            return subjects, None
        observed = Observed.of(self.lr_hsi.value, self.hr_msi.value)
        if observed is None:
            show_warning(
                "Comparing: choose a reference; without one, an LR-HSI and an HR-MSI layer."
            )
            return None
        return subjects, observed

    def _start(self, *work: Any, **words: Any) -> Job:
        self.panel.work_begins()
        self.compare_button.enabled = self.maps_button.enabled = False
        self.cancel_button.enabled = True
        self.job = run_job(*work, on_end=self._over, on_cancelled=self._cancelled, **words)
        return self.job

    # -- what a job says

    def _take_row(self, event: Measured, subjects: list[Subject], scaled: bool) -> None:
        self.panel.advance(event.done)
        if event.row is None and not event.problem:
            return
        subject = subjects[event.key]
        there = subject.layer in self._viewer.layers
        taken = MeasuredRow(
            subject.layer.name if there else subject.name,
            event.row or {},
            subject.scale if scaled and self.measures.convention != "emr-diff" else None,
            event.notes,
            event.problem,
        )
        if there:
            self._measured[subject.layer] = taken
        self.panel.add(taken)

    def _hang(self, gallery: Gallery, subjects: list[Subject], where: Where, plan: Plan) -> None:
        there = [s if s.layer in self._viewer.layers else None for s in subjects]
        maps, problems = layers_of(gallery, there, where, plan)
        if maps:
            show_maps(self._viewer, maps, plan.of)
            self.view_row.view.fit()
        if problems:
            self.panel.summary.setText("No map of " + "; ".join(problems))

    def _cancelled(self) -> None:
        self.panel.summary.setText("Cancelled.")

    def _over(self) -> None:
        self.panel.work_ends()
        self.compare_button.enabled = self.maps_button.enabled = True
        self.cancel_button.enabled = False
        self.cancel_button.text = "Cancel"

    # -- how the layers are looked at

    def _members(self) -> list[Layer]:
        chosen = [s for s in reversed(self.checks.checked) if s != self.reference.layer]
        return chosen if self.reference.layer is None else [self.reference.layer, *chosen]

    # -- what the viewer and the form say

    def _mode_changed(self, *_: object) -> None:
        paired = self.reference.layer is None
        self.pair_rows.visible = paired
        self.map_kind.reset_choices()
        self.convention.enabled = not paired
        self.checks.refresh()
        self._members_changed()

    def _members_changed(self) -> None:
        self._ask_ratio()
        self.view_row.members_changed()

    def _ask_ratio(self) -> None:
        """The ratio is asked for only where a layer does not say it."""
        others = [layer for layer in self.checks.checked if layer != self.reference.layer]
        silent = any(map(says_no_scale, map(cube_or_none, others)))
        self.ratio_row.visible = self.reference.layer is not None and silent

    def _toggle_more(self, *_: object) -> None:
        self.more.visible = shown = self.more.native.isHidden()
        self.more_button.text = "▾ More" if shown else "▸ More"

    def _renamed(self, event: Any) -> None:
        for layer, of in self._measured.items():
            of.name = layer.name
        if self._against is not None:
            self.measures.reference = self._against.name
        self.panel.renamed()

    def _layer_removed(self, event: Any) -> None:
        self._measured.pop(event.value, None)
        if self._against == event.value:
            self._against = None

    def _moved(self, parent: Any) -> None:
        """End what goes on when the form is taken out of the window."""
        if parent is None:
            self.view_row.stop()
            self.cancel()

    def _closed(self, *_: object) -> None:
        """End everything with the dock, or with the window."""
        self.view_row.view.forget()
        self._links.clear()
        self._names.clear()
        for choice in (self.reference, self.lr_hsi, self.hr_msi):
            choice.release()
        self.checks.release()
        if self.job is not None:
            self.job.abandon()
