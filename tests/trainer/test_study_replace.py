import msgspec
import pytest

from tests.trainer.records import run_record, study_record
from trainer.begun import definitions_of
from trainer.config import TrainConfig
from trainer.parallel import Job
from trainer.records import RUN, STUDY, STUDY_TEXT, write_record
from trainer.study_replace import differences, make_way

CONFIG = TrainConfig(decay=0.0)
RUN_RECORD = msgspec.structs.replace(run_record(), definitions=definitions_of(CONFIG))


def test_the_record_of_a_study_is_set_aside_before_its_runs_are_replaced(tmp_path):
    write_record(tmp_path / STUDY, study_record({"x": (0.0, -0.1, 0.1, "no difference seen")}))
    (tmp_path / STUDY_TEXT).write_text("# Study")
    todo = [
        Job(
            f"{arm}-{seed}",
            (),
            tmp_path / f"{arm}-{seed}",
            msgspec.structs.replace(CONFIG, learning_rate=0.25, seed=seed),
        )
        for arm, seed in (("raw", 1), ("raw", 2), ("curated", 1))
    ]
    assert make_way(todo, "v", "d", tmp_path) == ""  # they are new: nothing is lost
    assert (tmp_path / STUDY).exists()
    for job in todo[1:]:
        job.folder.mkdir()
        write_record(job.folder / RUN, RUN_RECORD)
    old = (tmp_path / STUDY).read_bytes()
    assert make_way(todo, "v", "d", tmp_path) == (
        f"warning: {tmp_path} holds 2 finished runs of another study, which this one replaces; its"
        " record is kept as before-study.json (raw-2: train.learning_rate ="
        f" {CONFIG.learning_rate} → 0.25; train.seed = 1 → 2); to keep the"
        " runs, stop now and give another --out"
    )
    assert not (tmp_path / STUDY).exists()
    assert not (tmp_path / STUDY_TEXT).exists()
    assert (tmp_path / "before-study.json").read_bytes() == old
    assert "kept as" not in make_way(todo, "v", "d", tmp_path)  # stopped, and begun again
    assert make_way([], "v", "d", tmp_path) == ""


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, ["other documents than of True"]),
        ({"dataset_id": "e"}, ["dataset e → d"]),
        ({"valid_hash": "w"}, ["other validation documents"]),
        ({"definitions": {}}, ["made by another version of Assay"]),
        ({"config": TrainConfig(decay=0.5)}, ["train.decay = 0.5 → 0.0"]),
        ({"config": TrainConfig(decay=0.0, seed=9)}, ["train.seed = 9 → 1"]),
        (
            {"config": TrainConfig(decay=0.0, seed=9, keep_checkpoints=7)},  # decides nothing
            ["train.seed = 9 → 1"],
        ),
    ],
)
def test_what_differs_is_named(changes, found):
    run = msgspec.structs.replace(RUN_RECORD, **changes)
    assert differences(run, CONFIG, "v", "d") == found
