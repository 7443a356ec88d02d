import numpy as np
import pytest
from datasketch import MinHash

from dedup.config import NearConfig
from dedup.minhash import EMPTY, permutations, signatures
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


@pytest.mark.parametrize("scheme", ["affine32", "oph"])
@pytest.mark.parametrize("unit", ["word", "char", "space"])
def test_a_signature_does_not_depend_on_the_batch(flat, corpus, unit, scheme):
    config = NearConfig(unit=unit, num_perm=16, scheme=scheme)
    together = signatures(*flat(corpus), config)
    for cut in (1, 17, len(corpus) - 1):
        parts = [signatures(*flat(part), config) for part in (corpus[:cut], corpus[cut:])]
        assert np.array_equal(together, np.concatenate(parts))
    assert np.array_equal(together[::-1], signatures(*flat(corpus[::-1]), config))


def test_only_texts_without_words_are_empty(flat):
    for scheme in ("affine32", "legacy", "oph"):
        config = NearConfig(num_perm=8, scheme=scheme)
        found = signatures(*flat(["", " -- ", "a", "a b c d e f"]), config)
        assert (found == EMPTY).all(axis=1).tolist() == [True, True, False, False]


def test_the_estimate_is_close_to_the_jaccard(flat, oracle):
    words = [f"w{i}" for i in range(400)]
    texts = [" ".join(words[:300]), " ".join(words[50:])]
    a, b = signatures(*flat(texts), NearConfig(num_perm=4096))
    # Standard error √(J(1−J)/K) ≈ 0.007 at K = 4096.
    assert (a == b).mean() == pytest.approx(oracle.jaccard(*texts, 5), abs=0.03)


def fmix32(h):
    h = (h ^ (h >> 16)) * 0x85EBCA6B & 0xFFFFFFFF
    h = (h ^ (h >> 13)) * 0xC2B2AE35 & 0xFFFFFFFF
    return h ^ (h >> 16)


def one_permutation(hashes, k, a, b):
    """One-permutation hashing with optimal densification, from its definition."""
    if not len(hashes):
        return [int(EMPTY)] * k
    values = [min(fmix32((a * fmix32(int(h) >> 32) + b) % 2**32), 2**32 - 2) for h in hashes]
    bins = {}
    for value in values:
        place = value * k >> 32
        bins[place] = min(value, bins.get(place, value))

    def borrowed(j):
        walk = [fmix32(j * 32 + step + 1) * k >> 32 for step in range(32)]
        far = sorted(bins, key=lambda full: (fmix32(j * k + full ^ 0x85EBCA77), full))
        return bins[next(place for place in [*walk, *far] if place in bins)]

    return [bins[j] if j in bins else borrowed(j) for j in range(k)]


@pytest.mark.parametrize("num_perm", [1, 37, 128])
def test_one_permutation_hashing_as_defined(flat, corpus, num_perm):
    texts = [*corpus[:40], " ".join(map(str, range(9000)))]
    config = NearConfig(scheme="oph", num_perm=num_perm, seed=5, bands=1, rows=1)
    a, b = (int(column[0]) for column in permutations(num_perm, 5, "affine32"))
    hashes, bounds = shingles(*flat(texts), 5, "word")
    for row, start, end in zip(signatures(*flat(texts), config), bounds, bounds[1:], strict=False):
        assert row.tolist() == one_permutation(hashes[start:end], num_perm, a, b)


@pytest.mark.parametrize("length", [16, 64, 400])
def test_one_permutation_hashing_estimates_the_jaccard(flat, length):
    # Single words, so that the Jaccard similarity is 1/2 by construction; 300 pairs of new words.
    texts = []
    for pair in range(300):
        words = [f"p{pair}w{i}" for i in range(length)]
        texts += [" ".join(words[: 3 * length // 4]), " ".join(words[length // 4 :])]
    found = signatures(*flat(texts), NearConfig(scheme="oph", ngram=1))
    estimates = (found[::2] == found[1::2]).mean(axis=1)
    assert estimates.mean() == pytest.approx(0.5, abs=0.02)
    # √(J(1 − J) / min(K, words)) bounds the error: borrowed bins are as good as repeated ones.
    assert estimates.std() < 1.2 * (0.25 / min(128, length)) ** 0.5


def test_read_only_and_empty_batches(flat):
    data, offsets = flat([])
    assert signatures(data, offsets, NearConfig()).shape == (0, 128)
