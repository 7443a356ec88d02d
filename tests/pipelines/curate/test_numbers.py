"""Every number is an element once, and many of them make no large graph."""

import pytest
from apache_beam.testing.util import assert_that, equal_to

from pipelines.beam import beam
from pipelines.curate.numbers import numbers
from pipelines.runners import RunnerOptions, run_pipeline


@pytest.mark.parametrize("count", [0, 3, 1000, 2501])
def test_every_number_once(count):
    def build(pipeline):
        assert_that(numbers(pipeline, "shards", count), equal_to(list(range(count))))

    run_pipeline(RunnerOptions(), build, label="numbers")


def test_a_graph_of_a_million_is_small():
    pipeline = beam.Pipeline()
    numbers(pipeline, "ranges", 1_000_000)
    assert len(pipeline.to_runner_api().SerializeToString()) < 100_000
