import numpy as np
import pytest
from datasketch import MinHash

from dedup.config import NearConfig
from dedup.minhash import EMPTY, signatures
from dedup.shingles import shingles


@pytest.mark.parametrize("scheme", ["affine32", "legacy"])
@pytest.mark.parametrize("unit", ["word", "char", "space"])
@pytest.mark.parametrize(("num_perm", "seed", "ngram"), [(128, 1, 5), (37, 9, 1)])
def test_bit_identical_to_datasketch(flat, corpus, scheme, unit, num_perm, seed, ngram):
    texts = [*corpus[:40], " ".join(map(str, range(9000)))]  # the last one takes several chunks
    config = NearConfig(scheme=scheme, unit=unit, num_perm=num_perm, seed=seed, ngram=ngram)
    found = signatures(*flat(texts), config)
    hashes, bounds = shingles(*flat(texts), ngram, unit)
    for row, start, end in zip(found, bounds[:-1], bounds[1:], strict=True):
        peer = MinHash(num_perm=num_perm, seed=seed, scheme=scheme, hashfunc=lambda value: value)
        peer.update_batch([int(value) >> 32 for value in hashes[start:end]])
        assert row.tolist() == peer.hashvalues.tolist()


@pytest.mark.parametrize("unit", ["word", "char", "space"])
def test_a_signature_does_not_depend_on_the_batch(flat, corpus, unit):
    config = NearConfig(unit=unit, num_perm=16)
    together = signatures(*flat(corpus), config)
    for cut in (1, 17, len(corpus) - 1):
        parts = [signatures(*flat(part), config) for part in (corpus[:cut], corpus[cut:])]
        assert np.array_equal(together, np.concatenate(parts))
    assert np.array_equal(together[::-1], signatures(*flat(corpus[::-1]), config))


def test_only_texts_without_words_are_empty(flat):
    found = signatures(*flat(["", " -- ", "a", "a b c d e f"]), NearConfig(num_perm=8))
    assert (found == EMPTY).all(axis=1).tolist() == [True, True, False, False]


def test_the_estimate_is_close_to_the_jaccard(flat, oracle):
    words = [f"w{i}" for i in range(400)]
    texts = [" ".join(words[:300]), " ".join(words[50:])]
    a, b = signatures(*flat(texts), NearConfig(num_perm=4096))
    # Standard error √(J(1−J)/K) ≈ 0.007 at K = 4096.
    assert (a == b).mean() == pytest.approx(oracle.jaccard(*texts, 5), abs=0.03)


def test_read_only_and_empty_batches(flat):
    data, offsets = flat([])
    assert signatures(data, offsets, NearConfig()).shape == (0, 128)
