"""Bits of a corpus before and after each stage, on tables made by hand."""

import random

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.curate.bits import STAGES, stage_bits, window_bits
from pipelines.curate.stats import merge_stats
from pipelines.quality.compression import zstd_bpb
from shards.text import flat

REASONS = [
    None,
    "gopher_words_min",
    "prose",
    "contaminated",
    "exact_duplicate",
    "near_duplicate",
    "repeated_text",
    "bad_json",
]


def noise(seed, size=3000):
    return "".join(random.Random(seed).choices("abcdefgh ", k=size))


def judged(rows):
    """Return a table of (text, reason) rows."""
    texts = pa.array([text for text, _ in rows], pa.large_string())
    bpb = zstd_bpb(*flat(texts), 3)
    bad = pa.array([reason if reason == "bad_json" else None for _, reason in rows], pa.string())
    return pa.table(
        {
            "text": texts,
            "reason": pa.array([reason for _, reason in rows], pa.string()),
            "error": bad,
            "bytes": pa.array([len(text) for text, _ in rows], pa.int64()),
            "zstd_bpb": bpb,
            "marginal_bpb": bpb / 2,
        }
    )


def test_each_stage_loses_what_its_reasons_dropped():
    found = stage_bits(judged([(noise(k), reason) for k, reason in enumerate(REASONS)]))
    assert list(found) == list(STAGES)
    assert [found[stage]["documents"] for stage in STAGES] == [7, 5, 4, 3, 2, 1]
    (alone,) = zstd_bpb(*flat(pa.array([noise(0)], pa.large_string())), 3)
    assert found["repeats"]["bytes"] == 3000
    assert found["repeats"]["document_bits"] == round(float(alone) * 3000)
    assert found["repeats"]["marginal_bits"] == round(float(alone) * 1500)


def test_a_window_pays_for_shared_text_once():
    shared = noise(1)
    twice = stage_bits(judged([(shared, None), (shared, "exact_duplicate")]))
    assert twice["read"]["document_bits"] == 2 * twice["repeats"]["document_bits"]
    assert twice["read"]["window_bits"] < 1.05 * twice["repeats"]["window_bits"]


@given(st.lists(st.tuples(st.text("abc é", max_size=9), st.sampled_from(REASONS)), max_size=9))
def test_stages_shrink_and_add_up_over_shards(rows):
    found = stage_bits(judged(rows))
    for key in ("documents", "bytes", "document_bits", "marginal_bits"):
        values = [found[stage][key] for stage in STAGES]
        assert values == sorted(values, reverse=True)
    kept = sum(reason is None for _, reason in rows)
    assert found["repeats"]["documents"] == kept
    parts = [stage_bits(judged([row])) for row in rows]
    if parts:
        for stage, total in merge_stats(parts).items():
            assert total["document_bits"] == found[stage]["document_bits"]
            assert total["documents"] == found[stage]["documents"]


def test_no_text_has_no_bits():
    assert window_bits(np.zeros(0, np.uint8), np.zeros(1, np.int64)) == 0
    assert window_bits(np.zeros(9, np.uint8), np.array([4, 4])) == 0
