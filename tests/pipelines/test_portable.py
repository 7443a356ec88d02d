"""The same dataset through the portable API that Spark, Flink and Dataflow use.

Beam's own local job server always runs. Spark and Flink run where the environment names the jar of
a job server of this version of Beam, and are reported as skipped where it does not.
"""

import os
import socket
import subprocess
import sys
import time

import pytest

from pipelines.curate.job import curate
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions, RunnerOptions

LOOPBACK = "--environment_type=LOOPBACK"


@pytest.fixture
def local_server():
    """Beam's job server in a process of its own; yields its address."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    module = "apache_beam.runners.portability.local_job_service_main"
    server = subprocess.Popen(
        [sys.executable, "-m", module, "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                break
        time.sleep(0.1)
    yield f"localhost:{port}"
    server.kill()
    server.wait()


HERE = RunnerOptions()


def dataset_id(corpus, out, runner=HERE):
    recipe = curate_recipe(
        {"input": {"paths": [str(corpus / "*")]}, "output": {"shard_bytes": 1 << 16}}
    )
    return curate(recipe, str(out), JobOptions(runner, 20_000, quiet=True))[0].dataset_id


def test_a_job_server_makes_the_same_dataset(corpus, tmp_path, local_server):
    runner = RunnerOptions("PortableRunner", 1, (f"--job_endpoint={local_server}", LOOPBACK))
    assert dataset_id(corpus, tmp_path / "there", runner) == dataset_id(corpus, tmp_path / "here")


@pytest.mark.parametrize(
    ("runner", "option", "variable"),
    [
        ("SparkRunner", "--spark_job_server_jar", "ASSAY_SPARK_JOB_SERVER_JAR"),
        ("FlinkRunner", "--flink_job_server_jar", "ASSAY_FLINK_JOB_SERVER_JAR"),
    ],
)
def test_an_engine_makes_the_same_dataset(corpus, tmp_path, runner, option, variable):
    jar = os.environ.get(variable)
    if not jar:
        pytest.skip(f"{runner}: {variable} names no job server's jar")
    there = RunnerOptions(runner, 1, (f"{option}={jar}", LOOPBACK))
    assert dataset_id(corpus, tmp_path / "there", there) == dataset_id(corpus, tmp_path / "here")
