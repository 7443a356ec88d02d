import re
from itertools import groupby, pairwise

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.lines import (
    find_passages,
    find_repeats,
    merge_tables,
    remove_spans,
    repeated,
    tabulate,
)

SPACE = r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
PIECES = ["a line", "a  line\r", "b", "é", "", " ", "\u3000", "long " * 30, "end", "\n"]
TEXTS = st.lists(st.lists(st.sampled_from(PIECES), max_size=8).map("\n".join), max_size=5)
UNITS = st.sampled_from(["line", "paragraph"])


def normal(text):
    return re.sub(SPACE, " ", text).strip(" ")


def cut(text, unit):
    """The oracle's passages: lines, or runs of lines up to the last blank one of a gap."""
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    if unit == "line":
        return lines
    out, gap = [], False
    for line in lines:
        blank = not normal(line)
        if out and not (gap and not blank):
            out[-1] += line
        else:
            out.append(line)
        gap = blank
    return out


def oracle(texts, keys, unit, min_bytes):
    """(doc, start, end, count, first key, first start) of each passage to remove."""
    rows = []
    for doc, text in enumerate(texts):
        at = 0
        for passage in cut(text, unit):
            size = len(passage.encode())
            if len(normal(passage).encode()) >= min_bytes:
                rows.append((normal(passage), keys[doc], at, doc, size))
            at += size
    out = []
    for _, group in groupby(sorted(rows), key=lambda row: row[0]):
        first, *rest = same = list(group)
        out += [(d, at, at + n, len(same), first[1], first[2]) for _, _, at, d, n in rest]
    return sorted(out)


def scan(flat, texts, keys, unit, min_bytes):
    passages = find_passages(*flat(texts), unit, min_bytes)
    return passages, tabulate(passages, np.array(keys, dtype=np.uint64))


def rows(repeats):
    return [tuple(row) for row in np.array(repeats[:6], dtype=object).T.tolist()]


@given(TEXTS, UNITS, st.integers(1, 8), st.permutations(range(5)), st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_repeats_are_the_oracles_for_any_batches(flat, texts, unit, min_bytes, order, at):
    keys = order[: len(texts)]
    batches = [(texts[:at], keys[:at]), (texts[at:], keys[at:])]
    table = merge_tables([scan(flat, *batch, unit, min_bytes)[1] for batch in batches[::-1]])
    found, base = [], 0
    for batch, batch_keys in batches:
        passages, _ = scan(flat, batch, batch_keys, unit, min_bytes)
        part = find_repeats(passages, np.array(batch_keys, dtype=np.uint64), repeated(table))
        found += rows(part._replace(doc=part.doc + base))
        base += len(batch)
    assert found == oracle(texts, keys, unit, min_bytes)


@given(TEXTS, UNITS)
@settings(deadline=None)
def test_what_stays_holds_each_passage_once_and_loses_none(flat, texts, unit):
    keys = np.arange(len(texts), dtype=np.uint64)
    passages = find_passages(*flat(texts), unit, 1)
    repeats = find_repeats(passages, keys, tabulate(passages, keys))
    data, bounds = remove_spans(*flat(texts), *repeats[:3])
    left = [data[a:b].tobytes().decode() for a, b in pairwise(bounds)]
    seen, expected = {""}, []
    for text in texts:
        kept = ""
        for passage in cut(text, unit):
            if not normal(passage) or normal(passage) not in seen:
                kept += passage
            seen.add(normal(passage))
        expected.append(kept)
    assert left == expected


def test_hash_spans_and_evidence_of_a_small_case(flat):
    texts = ["head\nshared line of text\n", "x\n  shared line  of text\nshared line of text"]
    passages = find_passages(*flat(texts), "line", 8)
    assert passages.hash.tolist() == [xxhash.xxh3_64_intdigest(b"shared line of text")] * 3
    keys = np.array([9, 4], dtype=np.uint64)
    table = tabulate(passages, keys)
    assert [column.tolist() for column in table[1:]] == [[3], [4], [2], [0]]
    assert rows(find_repeats(passages, keys, table)) == [(0, 5, 25, 3, 4, 2), (1, 25, 44, 3, 4, 2)]


def test_documents_that_are_dropped_keep_nothing_out(flat):
    texts = ["the same words", "the same words"]
    passages = find_passages(*flat(texts), "line", 1)
    keys = np.arange(2, dtype=np.uint64)
    table = tabulate(passages, keys, np.array([False, True]))
    assert (table.occurrences.tolist(), table.key.tolist()) == ([1], [1])
    assert rows(find_repeats(passages, keys, repeated(table))) == []


def test_line_breaks_at_every_place_of_a_block_and_beyond_a_chunk(flat):
    texts = ["a" * n + "\n" + "b" * (130 - n) for n in range(1, 130)] + ["word " * 300_000] * 2
    starts = find_passages(*flat(texts), "line", 1)
    assert list(zip(starts.doc.tolist(), starts.end.tolist(), strict=True))[:4] == [
        (0, 2),
        (0, 131),
        (1, 3),
        (1, 131),
    ]
    assert starts.end[starts.start == 0].tolist() == [*range(2, 131), 1_500_000, 1_500_000]
    assert starts.hash[-1] == starts.hash[-2]


def test_overlapping_spans_and_offsets_inside_a_buffer(flat):
    data, offsets = flat(["skipped", "0123456789", "abc"])
    spans = np.array([[0, 0, 1], [2, 3, 0], [5, 7, 3]])
    out, bounds = remove_spans(data, offsets[1:].copy(), *spans)
    assert (out.tobytes(), bounds.tolist()) == (b"01789", [0, 5, 5])


def test_nothing_and_blank_lines(flat):
    none = find_passages(*flat([]), "line")
    assert none.hash.size == merge_tables([]).hash.size == 0
    assert find_passages(*flat(["\n \n\n"]), "paragraph", 1).hash.size == 0
    with pytest.raises(ValueError, match="min_bytes = 0"):
        find_passages(*flat([]), "line", 0)
