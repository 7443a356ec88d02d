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


def test_definitions_name_their_versions():
    assert definitions()["dedup.word"].startswith("word-v1")
    assert all("-v" in value for value in definitions().values())
