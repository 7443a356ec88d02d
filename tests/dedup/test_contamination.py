import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.contamination import find_contamination, index_items
from dedup.lines import remove_spans

WORDS = st.lists(st.sampled_from(["a", "B,", "ç", "漢", "d-d", "!!"]), max_size=12).map(" ".join)
TEXTS = st.lists(WORDS, max_size=5)


def ngrams_of(oracle, text, ngram, min_words):
    words = oracle.words(text)
    length = min(ngram, len(words))
    if length < min_words:
        return set(), length
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}, length


def expected(oracle, docs, items, ngram, min_words):
    """{document: (item, shared n-grams, overlap)} by sets of tuples of words."""
    found = {}
    for number, doc in enumerate(docs):
        words = oracle.words(doc)
        ranked = []
        for item, text in enumerate(items):
            ngrams, length = ngrams_of(oracle, text, ngram, min_words)
            mine = {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}
            if shared := len(ngrams & mine):
                ranked.append((-shared / len(ngrams), -shared, item))
        if ranked:
            share, shared, item = min(ranked)
            found[number] = (item, -shared, np.float32(-share))
    return found


def find(flat, docs, items, *options):
    return find_contamination(*flat(docs), index_items(*flat(items), *options))


def summary(found):
    rows = zip(found.item.tolist(), found.shared.tolist(), found.overlap.tolist(), strict=True)
    return dict(zip(found.doc.tolist(), rows, strict=True))


@given(TEXTS, TEXTS, st.sampled_from([(1, 1), (3, 1), (3, 2), (4, 4), (5, 3)]))
@settings(max_examples=300, deadline=None)
def test_documents_and_their_best_items_are_the_oracles(flat, oracle, docs, items, options):
    found = find(flat, docs, items, *options)
    assert summary(found) == expected(oracle, docs, items, *options)


@given(TEXTS, TEXTS)
@settings(max_examples=200, deadline=None)
def test_spans_cover_every_shared_ngram_and_nothing_else(flat, oracle, docs, items):
    found = find(flat, docs, items, 3, 2)
    for doc, (a, b) in zip(found.doc, pairwise(found.span_offsets), strict=True):
        raw = docs[doc].encode()
        spans = list(zip(found.start[a:b].tolist(), found.end[a:b].tolist(), strict=True))
        assert spans == sorted(spans)
        assert all(end < start for (_, end), (start, _) in pairwise(spans))
        covered = {place for start, end in spans for place in range(start, end)}
        # Every word of a span is in a shared n-gram, every other word in none.
        words, at = [], 0
        text = docs[doc]
        for word in oracle.words(text):
            at = text.casefold().index(word, at)
            words.append((word, len(text[:at].encode())))
            at += len(word)
        inside = [False] * len(words)
        targets = {t for item in items for t in ngrams_of(oracle, item, 3, 2)[0]}
        for length in (2, 3):
            for i in range(len(words) - length + 1):
                if tuple(word for word, _ in words[i : i + length]) in targets:
                    inside[i : i + length] = [True] * length
        assert inside == [place in covered for _, place in words]
        assert max(covered) < len(raw)


def test_a_real_question_in_a_long_document(flat):
    question = "Which of these is the best way for a person to find out how deep the lake is?"
    filler = " ".join(f"w{i}" for i in range(5000))
    docs = [filler, f"{filler}\nQ: {question.upper()}  A: a rope. {filler}", "", question[:40]]
    found = find(flat, docs, ["too short an item", question, question + " More words here."])
    # 18 words make 6 13-grams, all found; the second item has 9, of which 6.
    assert summary(found) == {1: (1, 6, 1.0)}
    start = len(filler) + 4
    assert (found.start.tolist(), found.end.tolist()) == ([start], [start + len(question) - 1])
    left, bounds = remove_spans(*flat(docs[1:2]), np.zeros(1, int), found.start, found.end)
    assert left.tobytes().decode() == f"{filler}\nQ: ?  A: a rope. {filler}"
    assert bounds.tolist() == [0, left.size]


def test_short_items_are_found_whole_or_not_at_all(flat):
    eight = "one two three four five six seven eight"
    items = [eight, eight.removesuffix(" eight")]
    index = index_items(*flat(items))
    assert (index.n_ngrams.tolist(), index.lengths.tolist()) == ([1, 0], [8])
    docs = [f"zero {eight} nine", eight.replace("four", "4"), items[1]]
    assert summary(find_contamination(*flat(docs), index)) == {0: (0, 1, 1.0)}


def test_batches_change_nothing(flat):
    rng = random.Random(3)
    vocabulary = [f"w{i}" for i in range(30)]
    docs = [" ".join(rng.choices(vocabulary, k=rng.randrange(400))) for _ in range(40)]
    items = [doc[: rng.randrange(200)] for doc in docs[::3]]
    index = index_items(*flat(items), 5, 3)
    for array in index:
        array.setflags(write=False)  # as a mapped file gives it
    together = summary(find_contamination(*flat(docs), index))
    apart = {
        n: row
        for n, doc in enumerate(docs)
        for row in summary(find(flat, [doc], items, 5, 3)).values()
    }
    assert together == apart
    assert len(together) > 10


def test_no_items_and_impossible_lengths(flat):
    assert summary(find(flat, ["a b c"], [])) == {}
    assert summary(find(flat, [], ["a b c"], 2, 2)) == {}
    for ngram, min_words in ((3, 4), (3, 0)):
        with pytest.raises(
            ValueError, match=f"min_words = {min_words} must be from 1 to ngram = 3"
        ):
            index_items(*flat([]), ngram, min_words)
