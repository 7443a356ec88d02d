"""Progress files: any number of writers, read while they are being written."""

from pathlib import Path

from pipelines.progress import ProgressLog, describe, progress_folder, read_progress


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
