import msgspec
import pytest

from pipelines.report.study import CellWorth, Study, Worth
from pipelines.report.worth import worth_grid

CELLS = [
    CellWorth(cell="a/b/1", bytes=300, effect=-0.4, interval=(-0.6, -0.2)),
    CellWorth(cell="a/b/2", bytes=100, effect=0.2, interval=(-0.1, 0.5)),
    CellWorth(cell="c/2", bytes=100, effect=0.1, interval=(0.05, 0.15)),
]


@pytest.fixture
def study(make_study):
    worth = Worth(arms=["raw", "x", "y"], cells=CELLS, left_out_error=0.1, plain_error=0.2)
    made = make_study("x", study={"cells": {"signal": "zstd_bpb", "bins": 2}})
    return msgspec.structs.replace(msgspec.convert(made, Study), worth=worth)


def test_rows_are_sources_and_columns_bins(study):
    grid = worth_grid(study)
    assert (grid.signal, grid.columns) == ("zstd_bpb", ["1", "2"])
    assert [source for source, _ in grid.rows] == ["a/b", "c"]
    first, second = grid.rows[0][1]
    assert (first.text, first.kind, first.strength) == ("−0.040", "better", 1.0)
    assert first.interval == "−0.060 to −0.020"
    assert (second.kind, second.strength) == ("open", 0.5)
    assert grid.rows[1][1][0] is None
    assert grid.rows[1][1][1].kind == "worse"
    assert first.title == "a/b/1: −0.040 (−0.060 to −0.020); 60.0 % of the control"


def test_without_a_signal_a_cell_is_a_source(study):
    plain = msgspec.structs.replace(study, study={})
    assert [source for source, _ in worth_grid(plain).rows] == ["a/b/1", "a/b/2", "c/2"]
    assert worth_grid(plain).columns == []
    assert worth_grid(msgspec.structs.replace(study, worth=None)) is None
