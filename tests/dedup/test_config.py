import re

import msgspec
import pytest

from dedup.config import DedupConfig, NearConfig, definitions


def test_defaults_are_five_word_shingles_at_point_eight():
    near = msgspec.convert({}, DedupConfig).near
    assert (near.threshold, near.ngram, near.unit, near.keep) == (0.8, 5, "word", "longest")


@pytest.mark.parametrize("keep", ["longest", "earliest", "best:length", "best:-zstd_bpb"])
def test_keep_policies(keep):
    assert msgspec.convert({"keep": keep}, NearConfig).keep == keep


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"keep": "sources"}, "needs the sources, best first"),
        ({"sources": ["a"]}, "nothing else has them"),
        ({"keep": "sources", "sources": ["a", "b", "a"]}, "names a source twice"),
        ({"threshold": 0.0}, "> 0"),
        ({"threshold": 1.5}, "<= 1"),
        ({"ngram": 0}, ">= 1"),
        ({"keep": "best"}, "regex"),
        ({"keep": "best:"}, "regex"),
        ({"unit": "line"}, "enum"),
        ({"bands": 4}, "bands = 4 and rows = 0: give both"),
        ({"bands": 20, "rows": 7}, "needs 140 permutations, num_perm is 128"),
        ({"buckets": 3}, "unknown field"),
    ],
)
def test_values_that_cannot_be_used(table, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(table, NearConfig)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"threshold": 0.5, "size_ratio": 0.01, "measure": "containment"},
            r"threshold = 0.5 and size_ratio = 0.01 .* num_perm = 128 permits a recall of 0.47",
        ),
        ({"threshold": 0.8, "size_ratio": 0.03, "measure": "containment"}, "recall of 0.95"),
        ({"threshold": 0.03}, r"threshold = 0.03: num_perm = 128 permits a recall of 0.98"),
        ({"num_perm": 1}, "num_perm = 1 permits a recall of 0.80"),
        ({"threshold": 0.001}, r"takes 4555 permutations.*; set threshold = 0.035 or more"),
    ],
)
def test_a_recall_that_cannot_be_had_is_refused_and_the_ways_out_work(table, message):
    with pytest.raises(msgspec.ValidationError, match=message) as caught:
        msgspec.convert(table, NearConfig)
    ways = re.findall(
        r"(num_perm|size_ratio|threshold) = ([\d.]+)", str(caught.value).split("; ")[1]
    )
    assert ways
    for key, value in ways:
        number = int(value) if key == "num_perm" else float(value)
        msgspec.convert({**table, key: number}, NearConfig)
    for other in ({"bands": 1, "rows": 1}, {"optimise": "area"}, {"enabled": False}):
        msgspec.convert({**table, **other}, NearConfig)


def test_the_permutations_that_are_named_are_the_fewest():
    with pytest.raises(ValueError, match="set num_perm = 150, or threshold"):
        NearConfig(threshold=0.03, num_perm=149)
    assert NearConfig(threshold=0.03, num_perm=150).least_jaccard == 0.03


def test_definitions_name_their_versions():
    assert definitions()["dedup.word"].startswith("word-v1")
    assert all("-v" in value for value in definitions().values())
