import re
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.lines import find_repeats, merge_tables, remove_spans, repeated, tabulate
from dedup.substrings import find_anchors, find_windows, merge_anchors, removable_spans

WORDS = st.lists(st.sampled_from(["a", "b,", "Cc", "dé"]), max_size=14)
TEXTS = st.lists(WORDS.map("  ".join), max_size=5)


def scan(flat, batches, n_words):
    """The spans of every batch, by way of tables that are merged backwards."""
    anchors = merge_anchors(
        [find_anchors(*flat(texts), n_words) for texts, _ in reversed(batches)], 2
    )
    windows = [find_windows(*flat(texts), anchors, n_words) for texts, _ in batches]
    tables = [tabulate(part, keys) for part, (_, keys) in zip(windows, batches, strict=True)]
    table = repeated(merge_tables(tables[::-1]))
    return [
        removable_spans(part, find_repeats(part, keys, table), keys, n_words)
        for part, (_, keys) in zip(windows, batches, strict=True)
    ]


def oracle(texts, keys, n_words):
    """The bytes of each text to remove, from a table of all windows."""
    places = defaultdict(list)
    for doc, text in enumerate(texts):
        spans = [match.span() for match in re.finditer(r"\w+", text)]
        spans = [(len(text[:a].encode()), len(text[:b].encode())) for a, b in spans]
        words = re.findall(r"\w+", text.lower())
        for i in range(len(words) - n_words + 1):
            window = tuple(words[i : i + n_words])
            places[window].append((keys[doc], spans[i][0], spans[i + n_words - 1][1], doc))
    out = [set() for _ in texts]
    for same in places.values():
        first, *rest = sorted(same)
        for key, start, end, doc in rest:
            cut = max(start, first[2]) if key == first[0] else start
            out[doc] |= set(range(cut, end))
    return out


@given(TEXTS, st.integers(2, 6), st.permutations(range(5)), st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_spans_are_the_oracles_for_any_batches_and_order(flat, texts, n_words, order, at):
    keys = np.array(order[: len(texts)], dtype=np.uint64)
    batches = [(texts[:at], keys[:at]), (texts[at:], keys[at:])]
    found = [set() for _ in texts]
    for base, spans in zip((0, len(texts[:at])), scan(flat, batches, n_words), strict=True):
        for doc, start, end in zip(spans.doc, spans.start, spans.end, strict=True):
            assert found[base + doc].isdisjoint(range(start, end))
            found[base + doc] |= set(range(start, end))
    assert found == oracle(texts, keys.tolist(), n_words)


def test_a_passage_of_sixty_words_in_two_documents_with_its_evidence(flat):
    passage = " ".join(f"w{i}" for i in range(60))
    texts = [f"before {passage} after", f"elsewhere, {passage.upper()}!", passage[:120]]
    keys = np.array([7, 9, 8], dtype=np.uint64)
    (spans,) = scan(flat, [(texts, keys)], 50)
    assert [column.tolist() for column in spans] == [
        [1],
        [11],
        [11 + len(passage)],
        [2],
        [7],
        [len("before ")],
        [0],
    ]
    cut, bounds = remove_spans(*flat(texts), spans.doc, spans.start, spans.end)
    assert cut[bounds[1] : bounds[2]].tobytes() == b"elsewhere, !"


# White space of several widths, so that bytes and words do not go in step.
LOOSE = st.lists(
    st.tuples(st.sampled_from(["a", "b,", "Cc", "漢"]), st.integers(1, 9)), max_size=25
)
LOOSE_TEXTS = st.lists(LOOSE.map(lambda parts: "".join(w + " " * n for w, n in parts)), max_size=6)


def words_of(text, base=0):
    """(byte, word) of each word, from byte `base` on."""
    raw = text.encode()[base:].decode(errors="replace")
    found = re.finditer(r"\w+", raw.lower())
    return [(base + len(raw[: match.start()].encode()), match[0]) for match in found]


@given(LOOSE_TEXTS, st.integers(2, 6))
@settings(max_examples=400, deadline=None)
def test_each_span_stands_where_it_says_and_each_word_of_it_stays_somewhere(flat, texts, n_words):
    keys = np.arange(len(texts), dtype=np.uint64)[::-1].copy()
    (spans,) = scan(flat, [(texts, keys)], n_words)
    moved, last = {}, (0, 0)
    for doc, start, end, _, key, first, skipped in zip(*map(np.ndarray.tolist, spans), strict=True):
        assert last <= (doc, start) < (doc, end)
        last = (doc, end)
        source = len(texts) - 1 - key
        text = texts[doc].encode()[start:end].decode()
        here, there = words_of(text), words_of(texts[source], first)[skipped:]
        assert [word for _, word in here] == [word for _, word in there[: len(here)]] != []
        assert skipped == 0 or source == doc
        for (byte, _), (place, _) in zip(here, there, strict=False):
            moved[doc, start + byte] = (source, place)
            assert (key, place) < (keys[doc], start + byte)
    for place in moved:
        end = place
        while end in moved:
            end = moved[end]
        doc, byte = end
        assert (byte, dict(words_of(texts[place[0]]))[place[1]]) in words_of(texts[doc])


def test_a_span_of_two_sources_is_two(flat):
    left, right, both = "a b c d e", "v w x y z", "a b c d e v w x y z"
    (spans,) = scan(flat, [([left, right, both], np.array([1, 2, 3], dtype=np.uint64))], 3)
    assert (spans.start.tolist(), spans.end.tolist()) == ([0, 10], [9, 19])
    touching = ["漢字仮名", "東西南北", "漢字仮名東西南北"]
    (spans,) = scan(flat, [(touching, np.array([1, 2, 3], dtype=np.uint64))], 3)
    assert list(zip(*spans, strict=True)) == [(2, 0, 12, 2, 1, 0, 0), (2, 12, 24, 2, 2, 0, 0)]


def test_the_fewest_pieces_and_words_that_repeat_themselves(flat):
    # The middle window has a third source, but the first one reaches to where the last begins.
    texts = ["p a b c d", "d e f q", "b c d e", "a b c d e f"]
    (spans,) = scan(flat, [(texts, np.arange(4, dtype=np.uint64))], 3)
    rows = [row for row in zip(*(c.tolist() for c in spans), strict=True) if row[0] == 3]
    assert rows == [(3, 0, 6, 2, 0, 2, 0), (3, 6, 11, 2, 1, 0, 0)]
    # Five words of a period of two: the first window of three stays, the rest is inside it.
    (spans,) = scan(flat, [(["a b a b a"], np.array([3], dtype=np.uint64))], 3)
    assert list(zip(*spans, strict=True)) == [(0, 5, 9, 2, 3, 0, 1)]


def test_of_one_word_a_thousand_times_the_first_window_stays(flat):
    texts = ["word " * 1000]
    (spans,) = scan(flat, [(texts, np.array([3], dtype=np.uint64))], 50)
    assert (spans.start[0], spans.end[-1], spans.start.size) == (249, 4999, 20)
    assert (spans.start[1:] == spans.end[:-1]).all()
    assert (spans.first_start == 0).all()


def test_anchors_are_few_and_shared_windows_share_one(flat):
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{i}" for i in rng.integers(0, 10**6, 20_000)) for _ in range(2)]
    alone = find_anchors(*flat(texts), 50)
    assert 0.06 < alone.hash.size / 40_000 < 0.09  # 2 / (window + 1), Schleimer et al. 2003
    assert (alone.occurrences == 1).all()
    assert find_windows(*flat(texts), merge_anchors([alone], 2), 50).doc.size == 0


def test_windows_of_one_word_are_refused_and_nothing_gives_nothing(flat):
    for function in (find_anchors, lambda *batch: find_windows(*batch[:2], None, batch[2])):
        with pytest.raises(ValueError, match="n_words = 1"):
            function(*flat(["a"]), 1)
    assert [spans.doc.size for spans in scan(flat, [([], np.empty(0, dtype=np.uint64))], 5)] == [0]
