import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report import ladder
from pipelines.report.ladder import TokenCounts, count_tokens, model_rung, rungs, stream_rung
from pipelines.report.study import Study
from shards.dataset import TokenDataset
from shards.manifest import read_manifest


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=50).filter(any))
def test_entropy_is_at_most_the_fixed_code_and_equal_for_equal_frequencies(counts):
    side = TokenCounts(np.array(counts), bytes=100)
    assert 0 <= side.entropy_bpb <= side.fixed_bpb + 1e-9
    flat = TokenCounts(np.full(len(counts), 3), bytes=100)
    assert flat.entropy_bpb == pytest.approx(flat.fixed_bpb)


def test_entropy_of_a_known_distribution():
    side = TokenCounts(np.array([2, 1, 1, 0]), bytes=4)
    assert side.entropy_bpb == pytest.approx(1.5)  # H(1/2, 1/4, 1/4) = 1.5 bits, a token a byte
    assert side.fixed_bpb == 2


def test_token_counts_add_up_to_the_manifest(chain):
    dataset = TokenDataset.open(chain / "tokens")
    kept, everything, is_whole = count_tokens(dataset)
    total = dataset.manifest.content.total
    assert is_whole
    assert (everything.tokens, everything.bytes) == (total.tokens, total.bytes_read)
    assert kept.bytes == total.bytes_kept
    assert kept.tokens == dataset.select("dropped == ''").tokens


def test_a_bounded_count_says_so(chain):
    dataset = TokenDataset.open(chain / "tokens")
    assert len(dataset.entries) > 0
    assert count_tokens(dataset, limit=0)[2] is False


def test_rungs_of_a_whole_chain(chain, make_study):
    curated, tokens = (read_manifest(chain / name) for name in ("curated", "tokens"))
    study = msgspec.convert(make_study("x"), Study)
    found = rungs(chain, curated, tokens, study)
    assert [rung.name for rung in found] == [
        "raw text",
        "zstd-3, each document",
        "zstd-19 long, one stream",
        "tokens · log₂ V",
        "unigram entropy of tokens",
        "language model",
    ]
    assert all(0 < value <= 10 for rung in found for value in (rung.raw, rung.curated))
    stream = found[2]
    assert "all documents" in stream.definition
    assert stream.raw < stream.curated  # duplicates cost the raw side almost nothing
    assert (found[-1].raw, found[-1].curated) == (2.4, 2.3)


def test_a_bounded_stream_says_so(chain, monkeypatch):
    monkeypatch.setattr(ladder, "STREAM_BYTES", 1 << 10)
    rung = stream_rung(chain / "curated", read_manifest(chain / "curated"))
    assert "the first" in rung.definition


def test_without_the_text_of_dropped_documents_raw_is_not_measured(chain):
    curated = read_manifest(chain / "curated")
    curated.content.recipe["output"]["dropped_text"] = False
    rung = stream_rung(chain / "curated", curated)
    assert rung.raw is None
    assert rung.curated > 0


def test_an_arm_on_signals_only_is_raw_and_a_missing_side_is_none(make_study, make_arm):
    only = msgspec.convert(make_study("x", arms={"raw": make_arm(2.5)}), Study)
    assert (model_rung(only).raw, model_rung(only).curated) == (2.5, None)
