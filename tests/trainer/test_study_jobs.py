from tests.trainer.records import run_record
from trainer.parallel import Job
from trainer.records import RUN, write_record
from trainer.study_jobs import replaced


def test_finished_runs_that_another_study_would_replace_are_named(tmp_path):
    todo = [Job(name, (), tmp_path / name, 10) for name in ("raw-1", "raw-2", "curated-1")]
    assert replaced(todo) == ""
    for job in todo[1:]:
        job.folder.mkdir()
        write_record(job.folder / RUN, run_record())
    assert replaced(todo) == (
        f"warning: {tmp_path} holds 2 finished runs of another study, which this one replaces"
        " (raw-2: 400,000 tokens of dataset d, True); to keep them, stop now and give another --out"
    )
    assert replaced([]) == ""
