"""Progress files: any number of writers, read while they are being written."""

from pathlib import Path

from pipelines.progress import ProgressLog, progress_folder, read_progress


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
