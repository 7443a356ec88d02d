"""Contraction in rounds leaves the same files as one worker does."""

import random
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from pipelines import files
from pipelines.curate import decide, resolved
from pipelines.curate.contract import (
    FinishRound,
    LargeStar,
    SendLinks,
    SmallStar,
    read_links,
    read_round,
)
from pipelines.curate.decisions import EDGE, NODE
from pipelines.curate.fragments import Part
from pipelines.curate.job import curate
from pipelines.curate.plan import Plan
from pipelines.curate.resolve import resolve_steps
from pipelines.curate.resolved import NO_SHARD, ResolveContext, decisions_path, summary_path
from pipelines.curate.scan import ScanContext, with_fragments
from pipelines.readers import Range
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions, RunnerOptions, run_pipeline
from shards.errors import ReconcileError

SHARDS = 3
MANY = 10**6


def make_context(folder, most_edges=0):
    plan = Plan([], [], [], SHARDS, "scan", "stage")
    recipe = curate_recipe({"input": {"paths": ["in.jsonl"]}})
    scan = ScanContext(plan, recipe, 21, 6, str(folder), "")
    return ResolveContext(scan, str(folder), 100, "", most_edges)


def make_graph(pairs, seed=0, partitions=4):
    """Per partition (edges, nodes) over documents of random places, ids, ranks and shards.

    Every fifth document has an exact copy too.
    """
    rng = np.random.default_rng(seed)
    near = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    copied = np.unique(near[near % 5 == 0])
    pairs = np.r_[near, np.c_[copied, near.max() + 1 + np.arange(len(copied))]]
    count = int(pairs.max()) + 1
    nodes = np.zeros(count, dtype=NODE)
    nodes["place"] = rng.permutation(count) + (rng.integers(0, 3, count) << 32)
    nodes["id"] = np.frombuffer(rng.bytes(16 * count), dtype="S16")
    nodes["shard"] = rng.choice([*range(SHARDS), NO_SHARD], count)
    nodes["eligible"], nodes["key"] = rng.random(count) < 0.9, rng.integers(0, 9, count)
    edges = np.zeros(len(pairs), dtype=EDGE)
    edges["left"], edges["right"] = nodes["place"][pairs].T
    edges["similarity"] = edges["jaccard"] = rng.uniform(0.8, 1, len(pairs))
    edges["band"] = rng.integers(0, 21, len(pairs))
    edges["exact"][len(near) :] = True
    edges["similarity"][len(near) :] = edges["jaccard"][len(near) :] = 1
    owner = rng.integers(0, partitions, len(pairs))
    return [
        (edges[owner == part], nodes[np.unique(pairs[owner == part])]) for part in range(partitions)
    ]


def write_graph(context, parts):
    """Do what `verify` does, and hand over to `Decide`."""
    verified = [
        (99, 0, 0, context.expected_rows, 0, 0)
    ]  # a partition of which no pair was verified
    for number, (edges, nodes) in enumerate(parts):
        if len(edges):
            resolved.write_partition(context, number, edges, nodes)
            verified.append((number, len(edges), len(nodes), 0, 0, 0))
    list(decide.Decide(context).process((0, verified)))


def outcome(folder):
    paths = [decisions_path(str(folder), shard) for shard in range(SHARDS)]
    return [files.read_bytes(path) for path in (*paths, summary_path(str(folder)))]


def in_beam(context, workers=1):
    labels = []
    for label, build in resolve_steps(context):
        run_pipeline(RunnerOptions(workers=workers), build, label=label)
        labels.append(label)
    return labels


def test_a_chain_a_star_and_many_pairs_end_as_in_one_worker(tmp_path):
    chain = np.random.default_rng(1).permutation(1000).tolist()
    pairs = [*pairwise(chain), *((1000, 1001 + i) for i in range(2000))]
    pairs += [(5000 + 2 * i, 5001 + 2 * i) for i in range(300)]
    parts = make_graph(pairs)
    alone, rounds = make_context(tmp_path / "one", MANY), make_context(tmp_path / "many")
    write_graph(alone, parts)
    assert list(resolve_steps(alone)) == []
    write_graph(rounds, parts)
    labels = in_beam(rounds)
    assert labels[0] == "contract-1"
    assert labels[-1] == "decide"
    assert 4 < len(labels) < 14
    assert outcome(tmp_path / "many") == outcome(tmp_path / "one")
    assert list(resolve_steps(rounds)) == []


def test_a_killed_contraction_goes_on_where_it_was(tmp_path):
    parts = make_graph([(i, i + 1) for i in range(200)])
    context = make_context(tmp_path / "a")
    write_graph(context, parts)
    steps = resolve_steps(context)
    for _ in range(3):
        label, build = next(steps)
        run_pipeline(RunnerOptions(), build, label=label)
    assert in_beam(context)[0] == "contract-4"
    alone = make_context(tmp_path / "b", MANY)
    write_graph(alone, parts)
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")


def test_edges_of_a_run_with_other_ranges_are_not_taken_up(tmp_path):
    def folder(*ends):
        spans = [Range("in.jsonl", "jsonl", "none", 0, end) for end in ends]
        plan = Plan([], spans, [0] * len(spans), SHARDS, "scan", "stage")
        context = make_context(tmp_path)
        parts = [Part(number, 0) for number in range(len(spans))]
        scan = with_fragments(structs.replace(context.scan, plan=plan), parts)
        return structs.replace(context, scan=scan).graph("x")

    assert folder(10, 20) == folder(10, 20)
    assert len({folder(), folder(10), folder(20), folder(10, 20)}) == 4


def grouped(elements, random):
    groups = defaultdict(list)
    for key, value in random.sample(elements, len(elements)):
        groups[key].append(value)
    return groups.items()


def each(function, elements):
    function.setup()
    return [made for element in elements for made in function.process(element)]


def in_a_loop(context, random):
    """The DoFns of both graphs in a loop, elements in any order; returns the number of rounds."""
    number = 0
    while (done := read_round(context, number)).changes:
        number += 1
        sent = each(SendLinks(context, number), done.buckets)
        stars = each(LargeStar(context), grouped(sent, random))
        small = each(SmallStar(context, number), grouped(stars, random))
        each(FinishRound(context, number, done.edges), grouped(small, random))
    graph = decide.read_graph(context)
    sent = each(decide.SendGraph(context), graph.partitions)
    join = decide.JoinComponents(context, number, done.buckets)
    decided = each(decide.DecideBucket(context), grouped(each(join, grouped(sent, random)), random))
    decided += [(shard, ("decisions", b"")) for shard in range(SHARDS)]
    written = each(decide.WriteDecisions(context), grouped(decided, random))
    each(decide.FinishDecisions(context, graph), grouped(written, random))
    return number


GRAPHS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda pair: pair[0] != pair[1]),
    min_size=1,
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(GRAPHS, st.integers(0, 99), st.integers(0, 99))
def test_any_graph_ends_as_in_one_worker(tmp_path_factory, pairs, seed, order):
    folder = tmp_path_factory.mktemp("graph")
    parts = make_graph(sorted({tuple(sorted(pair)) for pair in pairs}), seed)
    write_graph(make_context(folder / "one", MANY), parts)
    context = make_context(folder / "many")
    write_graph(context, parts)
    in_a_loop(context, random.Random(order))
    assert outcome(folder / "many") == outcome(folder / "one")


def test_a_lost_element_stops_a_round_and_the_decisions(tmp_path):
    context = make_context(tmp_path)
    write_graph(context, make_graph([(i, i + 1) for i in range(50)]))
    with pytest.raises(ReconcileError, match="compared 99 hash rows but the scan wrote 100"):
        each(decide.Decide(context), [(0, [(0, 0, 0, 99, 0, 0)])])
    with pytest.raises(ReconcileError, match="6 of 7 pairs arrived"):
        each(decide.Decide(context), [(0, [(0, 0, 0, 50, 0, 6), (1, 0, 0, 50, 7, 0)])])
    with pytest.raises(ReconcileError, match="98 of 100 rows of edges arrived"):
        each(FinishRound(context, 1, 50), [(0, [(0, 50, (98, 50, 50, 0))])])
    with pytest.raises(ReconcileError, match="49 of 50 rows of large stars arrived"):
        each(FinishRound(context, 1, 50), [(0, [(0, 49, (100, 50, 49, 0))])])
    assert read_round(context, 1) is None
    rounds = in_a_loop(context, random.Random(0))
    graph, done = decide.read_graph(context), read_round(context, rounds)
    sent = each(decide.SendGraph(context), graph.partitions)
    join = decide.JoinComponents(context, rounds, done.buckets)
    for kind, what in (("edges", "edges"), ("nodes", "nodes")):
        lost = next(item for item in sent if item[1][0] == kind)
        rest = [item for item in sent if item is not lost]
        joined = each(join, grouped(rest, random.Random(0)))
        tallies = [payload[1] for _, payload in joined if payload[0] == "tally"]
        with pytest.raises(ReconcileError, match=rf"of \d+ {what} arrived"):
            each(decide.FinishDecisions(context, graph), [(0, tallies)])
    assert read_links(context, 0, graph.partitions[0]).size


def test_two_worker_processes_do_the_same(tmp_path):
    heads = range(1, 100, 5)  # paths of three documents: two rounds
    parts = make_graph([(head + i, head + i + 1) for head in heads for i in (0, 1)])
    context, alone = make_context(tmp_path / "two"), make_context(tmp_path / "one", MANY)
    write_graph(context, parts)
    write_graph(alone, parts)
    in_beam(context, workers=2)
    assert outcome(tmp_path / "two") == outcome(tmp_path / "one")


def test_the_job_gives_the_same_dataset_bucket_by_bucket(corpus, tmp_path, monkeypatch):
    def run(out, options):
        recipe = curate_recipe(
            {
                "input": {"paths": [str(corpus / "*")]},
                "filters": {"presets": ["gopher"]},
                "output": {"shard_bytes": 1 << 16},
            }
        )
        manifest, _ = curate(recipe, str(tmp_path / out), options)
        paths = (tmp_path / out).rglob("resolved-*/[ds]*")
        return manifest.dataset_id, {path.name: path.read_bytes() for path in paths}

    expected = run("one", JobOptions(quiet=True, keep_work=True))
    assert expected[1]["summary.json"]
    monkeypatch.setattr(resolved, "MOST_EDGES", 0)
    options = JobOptions(range_bytes=5_000, keep_work=True, quiet=True)
    assert run("many", options) == expected
    assert list((tmp_path / "many").rglob("graph-*/round-*.json"))
