"""The Beam graphs hold nothing that some runner treats differently: walk them as protos."""

from itertools import chain

import pytest
from apache_beam.portability.api import beam_runner_api_pb2

from pipelines.beam import beam
from pipelines.curate import inputs, job, resolved
from pipelines.curate.job import curate
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions

DETERMINISTIC = {f"beam:coder:{name}:v1" for name in ("varint", "bytes", "string_utf8")}
MOST_PAYLOAD = 5_000
MOST_GRAPH = 10_000_000
"""What the Dataflow service takes as one job request."""
IMAGE = "europe-docker.pkg.dev/a-project/assay/worker:1"


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """Label → proto of every pipeline that a curate job runs."""
    folder = tmp_path_factory.mktemp("graph")
    (folder / "in.jsonl").write_text('{"text": "a short text"}\n' * 3)
    found = {}
    real = job.run_pipeline

    def record(options, build, *, label):
        pipeline = beam.Pipeline()
        build(pipeline)
        found[label] = pipeline.to_runner_api()
        real(options, build, label=label)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "run_pipeline", record)
        patch.setattr(inputs, "run_pipeline", record)
        patch.setattr(resolved, "MOST_EDGES", 0)
        dedup = {"repeats": {"unit": "substring"}}
        recipe = curate_recipe({"input": {"paths": [str(folder / "in.jsonl")]}, "dedup": dedup})
        curate(recipe, str(folder / "out"), JobOptions(quiet=True))
    return found


def pardos(graph):
    for transform in graph.components.transforms.values():
        if transform.spec.urn == "beam:transform:pardo:v1":
            payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
            yield transform.unique_name, payload


def test_every_stage_is_a_graph(graphs):
    assert list(graphs) == [
        "hash",
        "scan",
        "pair",
        "verify",
        "contract-1",
        "decide",
        "find-anchors",
        "merge-anchors",
        "find-passages",
        "merge-passages",
        "write",
    ]


def test_no_state_no_timers_no_side_inputs(graphs):
    steps = list(chain.from_iterable(map(pardos, graphs.values())))
    assert len(steps) > 20
    for name, payload in steps:
        assert not payload.state_specs, name
        assert not payload.timer_family_specs, name
        assert not payload.side_inputs, name


def test_functions_are_pickled_by_the_name_of_their_module(graphs):
    for name, payload in chain.from_iterable(map(pardos, graphs.values())):
        assert b"__main__" not in payload.do_fn.payload, name
        assert len(payload.do_fn.payload) < MOST_PAYLOAD, name


def test_keys_have_coders_that_are_the_same_on_every_worker(graphs):
    keys = []
    for graph in graphs.values():
        parts = graph.components
        for transform in parts.transforms.values():
            if transform.spec.urn == "beam:transform:group_by_key:v1":
                (collection,) = transform.inputs.values()
                pair = parts.coders[parts.pcollections[collection].coder_id]
                keys.append(parts.coders[pair.component_coder_ids[0]].spec.urn)
    assert len(keys) == 12
    assert set(keys) <= DETERMINISTIC


def test_dataflow_takes_every_graph(graphs):
    """Beam's own client builds and checks the job, as far as that goes without the service."""
    pytest.importorskip(
        "apache_beam.runners.dataflow.internal.apiclient",
        reason="DataflowRunner: apache-beam[gcp] is not installed",
        exc_type=ImportError,
    )
    for label, graph in graphs.items():
        options = beam.options.pipeline_options.PipelineOptions(
            project="a-project",
            region="europe-west1",
            job_name=f"assay-{label}",
            temp_location="gs://bucket/temp",
            sdk_container_image=IMAGE,
            dry_run=True,
        )
        runner = beam.runners.create_runner("DataflowRunner")
        result = beam.Pipeline.from_runner_api(graph, runner, options).run()
        assert result.state == "DONE", label
        job = result.job.proto_pipeline
        images = {
            beam_runner_api_pb2.DockerPayload.FromString(environment.payload).container_image
            for environment in job.components.environments.values()
        }
        assert images == {IMAGE}, label
        assert job.ByteSize() < MOST_GRAPH, label
