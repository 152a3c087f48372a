"""The table of a comparison: order, the best of a column, CSV."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")

from qtpy.QtCore import Qt

from napari_hsfusion._qt.measures import MeasuredRow, Measures
from napari_hsfusion._qt.table import MeasuresTable
from napari_hsfusion.errors import WriteError
from napari_hsfusion.metrics import metric_infos

UP, DOWN = Qt.SortOrder.AscendingOrder, Qt.SortOrder.DescendingOrder


def row(name: str, psnr: float, sam: float, **more: Any) -> MeasuredRow:
    values = {"psnr": psnr, "sam": sam, "ergas": 1.0, "ssim": float("nan"), "bands": 12}
    return MeasuredRow(name, values, 4.0, **more)


@pytest.fixture
def measures() -> Measures:
    rows = [
        row("b", 30.0, 2.0),
        MeasuredRow("d, odd", problem='the shape is "wrong"'),
        row("a", 40.123456789012345, 3.0, notes=("no value: SSIM",)),
        row("C", 35.0, 1.0 / 3.0),
    ]
    return Measures(tuple(metric_infos().values()), "hsfusion", "truth; ü", rows)


def names(measures: Measures) -> list[str]:
    return [r.name for r in measures.rows]


def test_sort_keeps_unmeasured_rows_last(measures: Measures, qtbot: Any) -> None:
    table = MeasuresTable()
    qtbot.addWidget(table)
    table.rows.begin(measures)
    table.sortByColumn(1, DOWN)
    assert names(measures) == ["a", "C", "b", "d, odd"]
    table.sortByColumn(1, UP)
    assert names(measures) == ["b", "C", "a", "d, odd"]
    table.sortByColumn(2, UP)
    assert names(measures) == ["C", "b", "a", "d, odd"]
    # a row that comes later goes where it belongs
    table.rows.add(row("e", 1.0, 2.5))
    assert names(measures) == ["C", "b", "e", "a", "d, odd"]
    table.sortByColumn(0, DOWN)
    assert names(measures) == ["e", "d, odd", "C", "b", "a"]
    # the reason takes the place of the numbers, wherever the row has gone
    assert table.columnSpan(1, 1) == len(measures.infos)
    assert table.columnSpan(0, 1) == 1


def test_best_is_by_the_metrics_direction(measures: Measures, qtbot: Any) -> None:
    table = MeasuresTable()
    qtbot.addWidget(table)
    table.rows.begin(measures)
    bold = [
        [
            table.rows.data(table.rows.index(r, c), Qt.ItemDataRole.FontRole).bold()
            for c in range(table.rows.columnCount())
        ]
        for r in range(4)
    ]
    # PSNR: the highest; SAM: the lowest; ERGAS: a tie; SSIM: nobody has one
    assert bold[2][:5] == [False, True, False, True, False]
    assert bold[3][:5] == [False, False, True, True, False]
    assert bold[0][:5] == [False, False, False, True, False]
    assert not any(bold[1])
    alone = Measures(measures.infos, "hsfusion", "truth", [row("a", 1.0, 1.0)])
    assert alone.best(0) == set()


def test_heads_say_unit_and_direction(measures: Measures, qtbot: Any) -> None:
    table = MeasuresTable()
    qtbot.addWidget(table)
    table.rows.begin(measures)
    heads = [
        table.rows.headerData(c, Qt.Orientation.Horizontal) for c in range(table.rows.columnCount())
    ]
    assert heads[:5] == ["layer", "PSNR ↑\n(dB)", "SAM ↓\n(deg)", "ERGAS ↓\n(%)", "SSIM ↑"]
    texts = [table.rows.data(table.rows.index(2, c)) for c in range(5)]
    assert texts == ["a", "40.12", "3.000", "1.000", "–"]
    assert table.rows.data(table.rows.index(1, 1)) == 'the shape is "wrong"'


def test_csv_is_read_back(measures: Measures, tmp_path: Path) -> None:
    path = measures.save_csv(tmp_path / "table.csv")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["layer"] for r in rows] == ["b", "d, odd", "a", "C"]
    assert {r["convention"] for r in rows} == {"hsfusion"}
    assert {r["reference"] for r in rows} == {"truth; ü"}
    for read, made in zip(rows, measures.rows, strict=True):
        for info in measures.infos:
            head = info.label if info.unit == "1" else f"{info.label} ({info.unit})"
            number = made.values.get(info.key, float("nan"))
            text = read[head]
            np.testing.assert_equal(float(text) if text else float("nan"), number)
    assert rows[1]["note"] == 'the shape is "wrong"'
    assert rows[2]["note"] == "no value: SSIM"
    assert rows[0]["ratio"] == "4"
    frame = pytest.importorskip("pandas").read_csv(path)
    assert frame["PSNR (dB)"].tolist()[2] == 40.123456789012345


def test_csv_fails_whole(measures: Measures, tmp_path: Path) -> None:
    with pytest.raises(WriteError):
        measures.save_csv(tmp_path / "absent" / "table.csv")
    kept = tmp_path / "table.csv"
    kept.write_text("earlier")
    measures.reference = "\ud800"  # no file can hold half of a character
    with pytest.raises(UnicodeError):
        measures.save_csv(kept)
    assert kept.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [kept]
