import random

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pipelines.quality import (
    ReferenceConfig,
    SignalsConfig,
    compute_signals,
    definitions,
    known_signals,
    signal_fields,
)
from pipelines.quality.reference import (
    SIGNALS,
    decode,
    encode,
    folds,
    measure,
    sample,
    train_reference,
)
from shards.errors import InputError
from shards.text import flat

WORDS = "the of and to a in is that it was for on are as with they be at one have this".split()
COLD = "der die und in den von zu das mit sich des auf ist im dem nicht ein eine als auch".split()
CONFIG = SignalsConfig(reference=ReferenceConfig(model="x"))


def prose(words, seed, n=300):
    rng = random.Random(seed)
    return " ".join(rng.choice(words) for _ in range(n)).encode()


GOOD = [prose(WORDS, seed) for seed in range(24)]
SOURCES = [f"source {seed % 6}" for seed in range(24)]
NOTICE = prose(WORDS, 99)
BASE = [prose(COLD, seed) for seed in range(100, 120)] + [NOTICE] * 12


@pytest.fixture(scope="module")
def reference():
    return train_reference(GOOD, SOURCES, BASE, 3)


def signals(reference, texts):
    data, offsets = flat(pa.array([text.decode() for text in texts], pa.large_string()))
    return compute_signals(data, offsets, CONFIG, reference)


def test_good_text_is_told_from_the_rest(reference):
    texts = [prose(WORDS, 50), prose(COLD, 51), NOTICE, b"the and " * 200, b""]
    found = signals(reference, texts)
    good, cold, notice, repeats, _ = range(5)
    score = found["junk_score"]
    assert score[good] < min(score[cold], score[notice], score[repeats])
    assert found["ref_bpb"][good] < found["ref_bpb"][cold]
    assert found["ref_delta"][good] < 0 < found["ref_delta"][cold]
    assert found["zstd_dict_bpb"][good] < found["zstd_bpb"][good]
    assert found["zstd_z"][repeats] < -3
    assert found["common_share"].tolist() == [0, 0, 1, 0, 0]
    assert all(values[-1] == 0 for name, values in found.items() if name in SIGNALS)


def test_columns_are_those_of_the_schema(reference):
    found = signals(reference, GOOD[:3])
    assert list(found) == list(known_signals(CONFIG)) == [f.name for f in signal_fields(CONFIG)]
    for field in signal_fields(CONFIG):
        assert found[field.name].dtype == (np.int64 if field.type == pa.int64() else np.float32)
    assert "ref_bpb" not in known_signals(SignalsConfig())
    assert set(definitions(CONFIG)) - set(definitions()) >= {"ngram", "length_curve"}


def test_the_order_of_documents_changes_nothing_and_a_saved_reference_is_the_same(reference):
    order = random.Random(1).sample(range(24), 24)
    texts, sources = [GOOD[i] for i in order] + GOOD[:5], [SOURCES[i] for i in order] + ["z"] * 5
    again = train_reference(texts, sources, BASE[::-1], 3)
    assert encode(again) == encode(reference)
    data, offsets = flat(pa.array(["some text of the good"], pa.large_string()))
    zstd = np.array([5], np.float32)
    loaded = decode(encode(reference))
    assert measure(loaded, data, offsets, zstd) == measure(reference, data, offsets, zstd)


def test_folds_keep_sources_whole():
    texts = [b"x" * size for size in (9, 8, 7, 6, 1, 1)]
    assert folds(texts, ["a", "b", "c", "d", "a", "d"]).tolist() == [0, 1, 2, 3, 0, 3]
    assert folds(texts, ["a"] * 6).tolist() == [0, 1, 2, 3, 0, 1]


def test_a_reference_that_is_too_small_is_refused():
    with pytest.raises(InputError, match="too small: 3 documents"):
        train_reference(GOOD[:3], SOURCES[:3], BASE, 3)
    with pytest.raises(InputError, match="base of the reference has no documents"):
        train_reference(GOOD, SOURCES, [b""], 3)


@given(
    st.lists(st.tuples(st.binary(max_size=9), st.sampled_from("abc")), max_size=40),
    st.integers(1, 60),
)
def test_a_sample_is_the_documents_of_smallest_hash_each_once(documents, most):
    names = {}
    for text, source in documents:
        if text:
            names[text] = min(source, names.get(text, source))
    ordered = sorted(names, key=xxhash.xxh3_128_digest)
    ends = np.cumsum([len(text) for text in ordered])
    expected = ordered[: int(np.searchsorted(ends, most)) + 1]
    assert sample(iter(documents), most) == (expected, [names[text] for text in expected])


def test_without_masks_the_bytes_are_as_before_there_were_any(reference):
    assert b"masks" not in encode(reference)
    masked = reference._replace(masks="v1")
    assert decode(encode(masked)).masks == "v1"
