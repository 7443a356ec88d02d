import msgspec
import numpy as np
import pytest

from shards.errors import CorruptError
from tests.trainer.records import run_record
from trainer.records import (
    METRICS,
    VALID,
    CurvePoint,
    Metrics,
    curve_of,
    read_metrics,
    read_record,
    read_run,
    read_valid,
    sealed,
    write_record,
    write_valid,
)
from trainer.study_config import StudyConfig


def row(step: int, loss: float, bpb: float | None = None) -> Metrics:
    return Metrics(step, 10 * step, loss, 0.1, 1.0, 0.5, 20.0, 0.0, bpb)


def test_metrics_stop_at_the_step_and_at_a_torn_line(tmp_path):
    rows = [row(step, float(step)) for step in (1, 2, 3)]
    lines = [msgspec.json.encode(r) for r in rows]
    (tmp_path / METRICS).write_bytes(b"\n".join([*lines, lines[0][:20]]))
    assert read_metrics(tmp_path, 9) == rows
    assert read_metrics(tmp_path, 2) == rows[:2]
    assert read_metrics(tmp_path / "none", 2) == []


def test_curve_points_carry_the_mean_loss_since_the_last():
    rows = [row(1, 4.0), row(2, 2.0, 1.5), row(3, 1.0, 1.25)]
    assert curve_of(rows) == [CurvePoint(2, 20, 3.0, 1.5), CurvePoint(3, 30, 1.0, 1.25)]


def test_a_sealed_run_is_read_as_it_was_written_and_no_other(tmp_path):
    record = sealed(run_record())
    path = tmp_path / "run.json"
    write_record(path, record)
    assert read_run(path, record.run_key) == record
    text = path.read_text()
    for old, new in (('"bigram": 2.5', '"bigram": 9.0'), ('"valid_bpb": 2.4', '"valid_bpb": 2.3')):
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(CorruptError, match=r"run\.json: is not as it was written .* remove"):
            read_run(path, record.run_key)
    path.write_text(text.replace('"tokens_per_s": 1000.0', '"tokens_per_s": 1.0'))  # a fact
    assert read_run(path, record.run_key).bpb == record.bpb
    write_record(path, run_record())  # of an older Assay
    assert read_run(path, record.run_key) == run_record()


def test_validation_scores_are_verified(tmp_path):
    bits, sizes = np.array([1.5, 2.5]), np.array([3, 4])
    sha256 = write_valid(tmp_path, bits, sizes)
    assert write_valid(tmp_path, bits, sizes) == sha256
    assert [a.tolist() for a in read_valid(tmp_path, sha256)] == [[1.5, 2.5], [3, 4]]
    data = bytearray((tmp_path / VALID).read_bytes())
    data[60] ^= 1
    (tmp_path / VALID).write_bytes(data)
    with pytest.raises(CorruptError, match=VALID):
        read_valid(tmp_path, sha256)


def test_a_broken_record_is_an_error_that_names_it(tmp_path):
    write_record(tmp_path / "x.json", StudyConfig())
    assert read_record(tmp_path / "x.json", StudyConfig) == StudyConfig()
    (tmp_path / "x.json").write_text('{"arms": 3}')
    with pytest.raises(CorruptError, match=r"x\.json: not a StudyConfig"):
        read_record(tmp_path / "x.json", StudyConfig)
