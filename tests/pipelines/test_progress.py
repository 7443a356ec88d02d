"""Progress files: any number of writers, read while they are being written."""

import json
from pathlib import Path

import pytest

from pipelines import progress
from pipelines.progress import (
    ProgressLog,
    describe,
    progress_folder,
    read_progress,
    show_progress,
    stage_event,
)
from shards.console import Terminated


def test_workers_lines_add_up_and_a_half_written_line_is_left_out(tmp_path):
    folder = progress_folder(str(tmp_path), "scan")
    first, second = ProgressLog(folder), ProgressLog(folder)
    first.add(10, 1)
    second.add(20, 2)
    first.add(5, 0)
    (Path(folder) / "half.txt").write_text("7 1\n99")
    assert read_progress(Path(folder)) == (42, 4)


def test_remote_output_has_no_progress_files():
    assert progress_folder("gs://bucket/out", "scan") == ""
    ProgressLog("").add(1, 1)


def test_a_stage_says_only_what_it_counts():
    assert describe(2_500_000, 3, "documents", 0.5) == "2.5 MB (5.0 MB/s), 3 documents"
    assert describe(0, 1200, "pairs verified", 1.0) == "1,200 pairs verified"
    assert describe(0, 0, "pairs verified", 1.0) == "no pairs verified"


def test_an_event_says_how_far_and_how_long_still():
    event = json.loads(stage_event("scan", "running", 25, 4, 0.5, 100, "documents"))
    assert event == {
        "event": "stage",
        "stage": "scan",
        "state": "running",
        "bytes": 25,
        "total_bytes": 100,
        "count": 4,
        "unit": "documents",
        "seconds": 0.5,
        "bytes_per_second": 50,
        "eta_seconds": 1.5,
    }


def test_nothing_is_guessed_where_nothing_is_known():
    unknown = json.loads(stage_event("resolve", "running", 0, 4, 0.5, 0, "rows"))
    assert unknown["total_bytes"] is None
    assert unknown["eta_seconds"] is None
    assert json.loads(stage_event("scan", "started", 0, 0, 0.0, 9, "rows"))["eta_seconds"] is None


def test_events_come_while_the_stage_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_EVENT_SECONDS", 0.01)
    folder = progress_folder(str(tmp_path), "scan")
    with show_progress("scan", 100, folder, events=True):
        ProgressLog(folder).add(40, 2)
        while len(lines := capsys.readouterr().out.splitlines()) < 1:
            pass
        first = json.loads(lines[0])
        while '"bytes":40' not in capsys.readouterr().out:
            pass
        ProgressLog(folder).add(60, 3)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (first["state"], first["count"]) == ("started", 0)
    assert (last["state"], last["bytes"], last["count"]) == ("finished", 100, 5)


@pytest.mark.parametrize(("error", "state"), [(ValueError, "failed"), (Terminated, "stopped")])
def test_the_last_event_of_a_stage_says_how_it_ended(tmp_path, capsys, error, state):
    folder = progress_folder(str(tmp_path), "scan")
    with pytest.raises(error), show_progress("scan", 9, folder, events=True):
        raise error
    states = [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()]
    assert states[-1] == state
    assert "finished" not in states


def test_a_step_counts_only_what_it_does_itself(tmp_path, capsys):
    folder = progress_folder(str(tmp_path), "resolve")
    ProgressLog(folder).add(0, 7)
    with show_progress("verify", 0, folder, unit="pairs", events=True):
        ProgressLog(folder).add(0, 2)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["count"] == 2
