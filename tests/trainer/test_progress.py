import io
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from trainer import progress
from trainer.records import Metrics


@pytest.fixture
def output(monkeypatch):
    def attach(*, terminal: bool) -> io.StringIO:
        stream = io.StringIO()
        console = Console(file=stream, force_terminal=terminal, width=120)
        monkeypatch.setattr(progress, "console", console)
        return stream

    return attach


def show(*, quiet: bool) -> None:
    with progress.Reporter(quiet=quiet, runs=2) as reporter:
        reporter.skipped("raw-1", 2.5)
        reporter.start("[curated]-1", 20, first=10)
        reporter.evaluated(2.25)
        for step in range(11, 21):
            reporter.step(step, 3.5, 12345.0)


def test_plain_lines_where_there_is_no_terminal(output):
    stream = output(terminal=False)
    show(quiet=False)
    lines = stream.getvalue().splitlines()
    assert lines[:2] == [
        "raw-1: done before, bpb 2.5000",
        "[curated]-1: goes on from step 10 of 20",
    ]
    assert lines[-1] == "[curated]-1: step 20/20 loss 3.500 bpb 2.250 12,345 tok/s"
    assert len(lines) == 5


def test_a_bar_in_a_terminal(output):
    stream = output(terminal=True)
    show(quiet=False)
    assert "[curated]-1 (2/2)" in stream.getvalue()
    assert "20/20" in stream.getvalue()


def test_a_terminal_shows_everything_that_a_step_measured(output):
    stream = output(terminal=True)
    row = Metrics(
        step=11, tokens=99, loss=3.0, lr=0.01, grad_norm=1.234, seconds=1.0, tokens_per_s=99.0,
        wait_share=0.004, valid_bpb=2.5, valid_by_source={"web": 2.125, "[code]": 1.5}, mfu=0.615,
        memory_bytes=3 << 20,
    )  # fmt: skip
    with progress.Reporter() as reporter:
        reporter.start("raw-1", 20)
        for loss in (5.0, 4.0, math.nan, 3.0):
            reporter.measured(msgspec.structs.replace(row, loss=loss))
        reporter.step(11, 3.0, 99.0)
    said = stream.getvalue()
    assert "loss █▅▁ · grad norm 1.23 · lr 0.01 · MFU 62% · data wait 0.4% · memory 3 MiB" in said
    assert "bpb by source: web 2.125 · [code] 1.500" in said


@given(st.lists(st.floats(-1e6, 1e6), max_size=200))
def test_a_sparkline_fits_and_spans_its_values(values):
    drawn = progress.sparkline(values, 8)
    assert len(drawn) == min(8, len(values))
    assert set(drawn) <= set(progress.SPARKS)
    rising = progress.sparkline(range(100), 8)
    assert rising == progress.SPARKS
    assert progress.sparkline([2.0, 2.0]) == "▁▁"


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_shows_nothing(output, terminal):
    stream = output(terminal=terminal)
    show(quiet=True)
    assert stream.getvalue() == ""


def test_runs_side_by_side_leave_lines_as_they_get_on(output):
    stream = output(terminal=False)
    with progress.Bars() as bars:
        bars.begin("[raw]-1", 10)
        bars.begin("raw-2", 10)
        bars.update("[raw]-1", 0, 0.0, 0.0, None)
        bars.update("raw-2", 5, 3.5, 100.0, None)
        bars.update("[raw]-1", 9, 3.25, 100.0, 2.5)
        bars.update("[raw]-1", 9, 3.25, 100.0, 2.5)
    assert stream.getvalue().splitlines() == [
        "raw-2: step 5/10 loss 3.500 100 tok/s",
        "[raw]-1: step 9/10 loss 3.250 bpb 2.500 100 tok/s",
    ]
