import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report import ladder
from pipelines.report.ladder import (
    TokenCounts,
    count_tokens,
    model_rung,
    rungs,
    stage_prices,
    stream_rung,
)
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
        "zstd-1 long, each shard",
        "zstd-19 long, one stream",
        "tokens · log₂ V",
        "unigram entropy of tokens",
        "language model",
    ]
    assert all(0 < value <= 10 for rung in found for value in (rung.raw, rung.curated))
    stream = found[3]
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


def test_prices_lead_from_what_was_read_to_what_was_kept(chain):
    curated = read_manifest(chain / "curated")
    prices = stage_prices(curated)
    assert [price.stage for price in prices] == ["read", "filters", "exact", "near"]
    total = curated.content.total
    assert (prices[0].bytes, prices[-1].bytes) == (total.bytes_read, total.bytes_kept)
    assert prices[-1].documents == total.kept
    bits = curated.content.stats["stages"]["near"]["document_bits"]
    assert prices[-1].document == bits / total.bytes_kept
    assert prices[0].window < prices[-1].window  # a copy costs almost nothing in its shard
    assert {price.marginal for price in prices} == {None}  # no reference


def test_marginal_bits_are_a_rung_where_there_is_a_reference(chain):
    curated = read_manifest(chain / "curated")
    for bits in curated.content.stats["stages"].values():
        bits["marginal_bits"] = bits["bytes"] * 2
    rung = next(r for r in rungs(chain, curated, None, None) if r.name.startswith("marginal"))
    assert (rung.raw, rung.curated) == (2, 2)


def test_a_dataset_without_stages_has_no_prices(chain):
    curated = read_manifest(chain / "curated")
    del curated.content.stats["stages"]
    assert stage_prices(curated) == []
    assert [rung.name for rung in rungs(chain, curated, None, None)][1:] == [
        "zstd-3, each document",
        "zstd-19 long, one stream",
    ]
