"""How many edges one worker can decide about, and how many rounds star contraction takes.

    python -m benchmarks.dedup_graph

`alone` is what a worker does with verified edges (read, decide, write), in a process of its own:
peak memory above that of the empty process, and CPU time, a verified edge. Its graph has blocks
of 8 documents with 12 edges between them. `rounds` counts the rounds of large-star and small-star
steps on shapes of graphs, the last one, which changes nothing, included; `bucket` is the work of
such a round.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from typing import Any

import numpy as np

from dedup.components import large_star, small_star
from dedup.words import UInt64
from pipelines.curate import decide
from pipelines.curate.decisions import EDGE, NODE
from pipelines.curate.plan import Plan
from pipelines.curate.resolved import LEAST_BUCKETS, ResolveContext, write_partition
from pipelines.curate.scan import ScanContext
from pipelines.recipe import curate_recipe

SHARDS = 16
BLOCK, BLOCK_EDGES = 8, 12


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(alone(int(sys.argv[1]))))
        return
    own = [sys.executable, "-m", "benchmarks.dedup_graph"]
    sizes = [run(own, n) for n in (500_000, 2_000_000, 8_000_000)]
    slopes = [
        (b["peak_bytes"] - a["peak_bytes"]) / (b["edges"] - a["edges"]) for a, b in pairwise(sizes)
    ]
    result = {
        "alone": sizes,
        "bytes_an_edge": [round(slope) for slope in slopes],
        "rounds": {name: rounds(*edges) for name, edges in shapes().items()},
        "bucket": bucket(1_000_000),
    }
    print(json.dumps(result))


def run(command: list[str], edges: int) -> dict[str, Any]:
    done = subprocess.run([*command, str(edges)], check=True, capture_output=True, text=True)
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def alone(n_edges: int) -> dict[str, Any]:
    """Write a graph's files, then do as one worker does."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan([], [], [], SHARDS, "", "")
        scan = ScanContext(plan, curate_recipe({"input": {"paths": ["x"]}}), 21, 6, folder, "")
        context = ResolveContext(scan, folder, 0, "", n_edges)
        rng = np.random.default_rng(0)
        parts = [(-1, 0, 0, 0, 0, 0)]
        n_nodes = 0
        for part in range(LEAST_BUCKETS):
            edges, nodes = blocks(n_edges // LEAST_BUCKETS, part, rng)
            write_partition(context, part, edges, nodes)
            parts.append((part, len(edges), len(nodes), 0, 0, 0))
            n_nodes += len(nodes)
        del edges, nodes
        list(
            decide.Decide(context).process((0, [(-1, 0, 0, 0, 0, 0)]))
        )  # compiled kernels are loaded
        before, start = peak(), time.process_time()
        list(decide.Decide(context).process((0, parts)))
        total = sum(part[1] for part in parts)
        return {
            "edges": total,
            "nodes": n_nodes,
            "peak_bytes": peak() - before,
            "cpu_us_an_edge": round((time.process_time() - start) / total * 1e6, 2),
        }


def blocks(n_edges: int, part: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return (edges, nodes) of `part`: blocks of `BLOCK` documents."""
    n = n_edges // BLOCK_EDGES * BLOCK
    nodes = np.zeros(n, dtype=NODE)
    nodes["place"] = (np.uint64(part) << np.uint64(32)) + np.arange(n, dtype=np.uint64)
    nodes["id"] = np.frombuffer(rng.bytes(16 * n), dtype="S16")
    nodes["shard"], nodes["key"] = rng.integers(0, SHARDS, n), -rng.integers(100, 10_000, n)
    nodes["eligible"] = True
    first = np.repeat(np.arange(0, n, BLOCK), BLOCK_EDGES)
    ends = np.array([(i, j) for i in range(BLOCK) for j in range(i)])[-BLOCK_EDGES:]
    chosen = np.tile(ends, (n // BLOCK, 1))
    edges = np.zeros(len(first), dtype=EDGE)
    edges["left"] = nodes["place"][first + chosen[:, 1]]
    edges["right"] = nodes["place"][first + chosen[:, 0]]
    edges["similarity"] = edges["jaccard"] = 0.9
    return edges, nodes


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def shapes() -> dict[str, tuple[UInt64, UInt64]]:
    """Return edges (left, right) of each shape, its nodes numbered at random."""
    rng = np.random.default_rng(0)
    found = {}
    for n in (1_000, 100_000, 1_000_000):
        path = rng.permutation(n).astype(np.uint64)
        found[f"path of {n}"] = (path[:-1], path[1:])
    many = rng.permutation(1_000_000).astype(np.uint64)
    found["star of 1000000"] = (np.full(many.size - 1, many[0]), many[1:])
    found["500000 pairs"] = (many[::2], many[1::2])
    blocks_of_8 = many.reshape(-1, 8)
    found["125000 paths of 8"] = (blocks_of_8[:, :-1].ravel(), blocks_of_8[:, 1:].ravel())
    ends = rng.integers(0, 1_000_000, (2, 1_500_000)).astype(np.uint64)
    found["random, 3 edges a node"] = (ends[0], ends[1])
    return found


def rounds(left: UInt64, right: UInt64) -> int:
    low, high, number, changes = left, right, 0, 1
    while changes:
        stars = large_star(np.concatenate([low, high]), np.concatenate([high, low]))
        low, high, small = small_star(stars[1], stars[0])
        number, changes = number + 1, stars[2] + small
    return number


def bucket(n_edges: int) -> dict[str, float]:
    """Time both steps of a round on `n_edges` random edges."""
    ends = np.random.default_rng(0).integers(0, n_edges, (2, n_edges)).astype(np.uint64)
    start = time.process_time()
    low, high, _ = large_star(
        np.concatenate([ends[0], ends[1]]), np.concatenate([ends[1], ends[0]])
    )
    small_star(high, low)
    return {
        "edges": n_edges,
        "cpu_us_an_edge": round((time.process_time() - start) / n_edges * 1e6, 2),
    }


if __name__ == "__main__":
    main()
