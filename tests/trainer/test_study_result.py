import msgspec
import numpy as np
import pytest

from shards.errors import CorruptError
from tests.trainer.records import run_record
from trainer.records import write_valid
from trainer.study_result import Runs


def test_scores_are_read_and_must_give_what_the_record_says(tmp_path):
    bits = np.array([20.0, 10.0])
    digest = write_valid(tmp_path, bits, np.array([10, 5]))
    run = msgspec.structs.replace(run_record(bpb=2.0), valid_sha256=digest)
    runs = Runs(None, {}, None, {"raw": [run, run]}, {"raw": [tmp_path, tmp_path]})
    assert runs.bits("raw").tolist() == [bits.tolist()] * 2
    runs.records["raw"][1] = msgspec.structs.replace(run, bpb=1.9)
    with pytest.raises(CorruptError, match=r"bpb = 1\.9, but the scores in valid\.npz give 2\.0"):
        runs.bits("raw")
