"""Runner policy, and errors that come back from workers as themselves."""

import json
import os
import re
import signal

import pytest

from pipelines import files
from pipelines.beam import beam
from pipelines.curate.inputs import HashFiles
from pipelines.runners import RunnerOptions, check_policy, run_pipeline
from shards.errors import InputError, PlatformError, RecipeError


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (RunnerOptions(runner="DaskRunner"), "silently loses outputs"),
        (RunnerOptions(runner="PrismRunner"), "downloads a binary"),
        (RunnerOptions(runner="DirectRunner"), "Prism first"),
        (RunnerOptions(runner="apache_beam.runners.dask.DaskRunner"), "silently loses outputs"),
        (RunnerOptions(runner="SwitchingDirectRunner"), "Prism first"),
        (RunnerOptions(runner="Foo"), "'Foo': unknown; known are DataflowRunner"),
        (RunnerOptions(runner="SparkRunner", workers=2), "its own options"),
        (RunnerOptions(beam_args=("--runner=SparkRunner",)), "Assay's own --runner"),
        (RunnerOptions(beam_args=("--direct_num_workers", "3")), "Assay's own --workers"),
        (RunnerOptions(beam_args=("--direct_num_workers=abc",)), "invalid int value: 'abc'"),
        (RunnerOptions(beam_args=("--no_such=1", "--x")), "unknown: --no_such=1 --x"),
        (RunnerOptions(beam_args=("--direct_running_mode=multi_threading",)), "loses elements"),
        (RunnerOptions(beam_args=("--save_main_session",)), "pickles whatever"),
        (RunnerOptions(workers=0), "at least 1"),
        (RunnerOptions(workers=10**20), "at most"),
    ],
)
def test_runners_that_lose_data_are_refused_with_a_reason(options, words):
    with pytest.raises(RecipeError, match=words):
        check_policy(options)


@pytest.mark.parametrize("runner", ["", "SparkRunner", "FlinkRunner", "DataflowRunner"])
def test_other_runners_are_accepted_with_their_options(runner):
    arguments = ("--environment_type=DOCKER", *(["--of_the_job_server=1"] if runner else []))
    check_policy(RunnerOptions(runner=runner, beam_args=arguments))


class Fail(beam.DoFn):
    def process(self, element):
        raise InputError(f"corpus.jsonl: record {element} is wrong\nsecond line")


class Group(beam.DoFn):
    def __init__(self, out):
        self._out = out

    def process(self, element):
        files.write_atomic(f"{self._out}/{element[0]}", json.dumps(sorted(element[1])).encode())


@pytest.mark.parametrize("endpoint", ["localhost:1", "nowhere.invalid:8099", "[::1]:1"])
def test_a_job_server_that_does_not_answer_is_named_at_once(endpoint):
    options = RunnerOptions("PortableRunner", beam_args=(f"--job_endpoint={endpoint}",))
    said = re.escape(f"--job_endpoint={endpoint}: no job server answers")
    with pytest.raises(PlatformError, match=said):
        run_pipeline(options, lambda pipeline: pytest.fail("was built"), label="test")
    without_port = RunnerOptions("PortableRunner", beam_args=("--job_endpoint=localhost",))
    with pytest.raises(RecipeError, match="write it as host:port"):
        run_pipeline(without_port, lambda pipeline: pytest.fail("was built"), label="test")


def test_an_error_in_a_worker_keeps_its_type_and_message():
    with pytest.raises(InputError) as caught:
        run_pipeline(
            RunnerOptions(), lambda p: p | beam.Create([7]) | beam.ParDo(Fail()), label="test"
        )
    assert str(caught.value) == "corpus.jsonl: record 7 is wrong\nsecond line"


def test_an_error_outside_the_tree_names_the_job_and_its_last_line():
    with pytest.raises(PlatformError, match=r"the test job failed: .*division by zero"):
        run_pipeline(
            RunnerOptions(),
            lambda p: p | beam.Create([0]) | beam.Map(lambda x: 1 / x),
            label="test",
        )


def test_an_error_in_a_worker_process_arrives_too_and_prints_no_traceback(capfd):
    with pytest.raises(InputError) as caught:
        run_pipeline(
            RunnerOptions(workers=2),
            lambda p: p | beam.Create([("/nowhere/a.jsonl", 1)]) | beam.ParDo(HashFiles("", "")),
            label="test",
        )
    assert str(caught.value) == "/nowhere/a.jsonl: cannot be opened: No such file or directory"
    assert capfd.readouterr() == ("", "")


class Die(beam.DoFn):
    def process(self, element):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_ends_the_job_instead_of_hanging_it():
    with pytest.raises(PlatformError, match="a worker process of the test job died"):
        run_pipeline(
            RunnerOptions(workers=2),
            lambda p: p | beam.Create([1]) | beam.ParDo(Die()),
            label="test",
        )


def test_groups_arrive_whole(tmp_path):
    def build(pipeline):
        pairs = [(number % 3, number) for number in range(10)]
        _ = pipeline | beam.Create(pairs) | beam.GroupByKey() | beam.ParDo(Group(str(tmp_path)))

    run_pipeline(RunnerOptions(), build, label="test")
    assert {int(p.name): json.loads(p.read_text()) for p in tmp_path.iterdir()} == {
        0: [0, 3, 6, 9],
        1: [1, 4, 7],
        2: [2, 5, 8],
    }
