"""Near duplicates in the curate job: the measure, the keep policy, the evidence."""

import json
import re

import numpy as np
import pyarrow.parquet as pq

from dedup.bands import band_hashes, banding
from dedup.config import NearConfig
from dedup.minhash import signatures
from pipelines.curate.job import curate
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions

WORDS = [f"w{i}" for i in range(900)]
INNER = " ".join(WORDS[:300])
OUTER = " ".join([*WORDS[300:450], *WORDS[:300], *WORDS[450:600]])
EDITED = " ".join([*WORDS[:150], "edited", *WORDS[150:300]])


def run(out, records, size=32 << 20, **near):
    path = out.parent / f"{out.name}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    recipe = curate_recipe({"input": {"paths": [str(path)]}, "dedup": {"near": near}})
    manifest, _ = curate(recipe, str(out), JobOptions(quiet=True, range_bytes=size))
    table = [row for role in ("kept", "dropped") for row in pq.read_table(out / role).to_pylist()]
    return manifest, {row["id"]: row for row in table}


def test_a_text_inside_another_is_a_duplicate_by_containment_only(tmp_path):
    records = [{"id": "inner", "text": INNER}, {"id": "outer", "text": OUTER}]
    _, rows = run(tmp_path / "jaccard", records)
    assert "reason" not in rows["inner"] | rows["outer"]
    _, rows = run(tmp_path / "containment", records, measure="containment", size_ratio=0.4)
    inner = rows["inner"]
    assert (inner["reason"], inner["matched"]) == ("near_duplicate", rows["outer"]["doc_id"])
    assert inner["value"] == np.nextafter(np.float32(1), np.float32(0))
    assert inner["jaccard"] == np.float32(296 / 596)  # 5-grams: all of the inner's are shared
    assert re.fullmatch(r"containment 1\.0000, band \d+, cluster of 2", inner["detail"])


def test_the_evidence_names_the_first_common_band_and_the_clusters_size(tmp_path):
    records = [
        {"id": "a", "text": INNER},
        {"id": "b", "text": EDITED},
        {"id": "c", "text": f" {INNER}"},
    ]
    _, rows = run(tmp_path / "out", records)
    found = rows["c"] if rows["a"].get("matched") is None else rows["a"]
    assert rows["b"].get("matched") is None  # the longest
    text = (INNER + EDITED).encode()
    config = NearConfig()
    offsets = np.array([0, len(INNER), len(text)])
    made = signatures(np.frombuffer(text, np.uint8), offsets, config)
    left, right = band_hashes(made, *banding(config))
    assert found["detail"] == f"band {np.flatnonzero(left == right)[0]}, cluster of 3"


def test_an_exact_duplicate_names_its_cluster(tmp_path):
    _, rows = run(tmp_path / "out", [{"id": str(i), "text": INNER} for i in range(3)])
    details = [row["detail"] for row in rows.values() if row.get("reason") == "exact_duplicate"]
    assert details == ["cluster of 3"] * 2


def test_the_better_source_stays_for_any_ranges(tmp_path):
    records = [
        {"id": "long", "text": f"{EDITED} and more", "source": "web"},
        {"id": "wiki", "text": EDITED, "source": "wiki"},
        {"id": "other", "text": f"{INNER} end", "source": "books"},
    ]
    near = {"keep": "sources", "sources": ["wiki", "books"], "threshold": 0.7}
    first, rows = run(tmp_path / "out", records, **near)
    assert [name for name, row in rows.items() if row.get("reason") is None] == ["wiki"]
    again, _ = run(tmp_path / "out2", records, 100, **near)
    assert again.dataset_id == first.dataset_id


def test_one_permutation_hashing_finds_the_same_duplicates(corpus, tmp_path):
    dropped = []
    for scheme in ("affine32", "oph", "legacy"):
        recipe = curate_recipe(
            {"input": {"paths": [str(corpus / "*")]}, "dedup": {"near": {"scheme": scheme}}}
        )
        curate(recipe, str(tmp_path / scheme), JobOptions(quiet=True))
        rows = pq.read_table(tmp_path / scheme / "dropped").to_pylist()
        dropped.append({(row["doc_id"], row["reason"], row["jaccard"]) for row in rows})
    assert dropped[0] == dropped[1] == dropped[2]
