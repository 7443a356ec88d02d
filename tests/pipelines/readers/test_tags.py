import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.readers.tags import count_names, long_tags


def cuts(page, most):
    data = np.frombuffer(bytearray(page), np.uint8)
    found = np.empty((len(data) // (most + 1) + 1, 2), np.int64)
    return found[: long_tags(data, most, found)].tolist()


def without(page, most):
    for begin, end in reversed(cuts(page, most)):
        page = page[:begin] + page[end:]
    return page


def names(page, size=64):
    return count_names(np.frombuffer(bytearray(page), np.uint8), np.zeros(size, np.uint64))


@pytest.mark.parametrize(
    ("page", "left"),
    [
        (b"<p a b c d>x", b"<p a b >x"),
        (b"<p a=1 b='2' c=\"3\" d>x", b"<p a=1 b='2' >x"),
        (b"<p/a/b/c/d>x", b"<p/a/b/>x"),
        (b"<p a='>'b=\">\"c='>'d>x", b"<p a='>'b=\">\">x"),
        (b"<p a = 1 b = 2 c = 3>x", b"<p a = 1 b = 2 >x"),
        (b"<p a=b=c=d e=f>x<p a b>", b"<p a=b=c=d e=f>x<p a b>"),
        (b"<p a b c", b"<p a b "),
        (b"< p a b c d> a < b c d", b"< p a b c d> a < b c d"),
        (b"</p a b c>x", b"</p a b >x"),
        # What hides the second tag from a reader that takes the first for one.
        (b'<!-- <a x="--><p a b c d>x', b'<!-- <a x="--><p a b >x'),
        (b"<script>a<b='</script><p a b c d>x", b"<script>a<b='</script><p a b >x"),
        (b"<title><i x=' y=\"</title><p a b c d>", b"<title><i x=' y=\"</title><p a b >"),
    ],
)
def test_attributes_beyond_so_many_go(page, left):
    assert without(page, 2) == left


PARTS = [b"<p", b"</a", b" ", b"a", b"bc", b"=", b"/", b'"', b"'", b">", b"\n", b"<", b"!--"]


def attributes(page, at):
    """Count a tag's attributes as the standard describes them."""
    at = re.compile(rb"[^\s/>]*").match(page, at).end()
    count = 0
    while True:
        at = re.compile(rb"[\s/]*").match(page, at).end()
        if at >= len(page) or page[at : at + 1] == b">":
            return count
        count += 1
        at = re.compile(rb"=?[^\s/>=]*").match(page, at).end()
        value = re.compile(rb"\s*=\s*(\"[^\"]*\"?|'[^']*'?|[^\s>]*)").match(page, at)
        at = value.end() if value else at


@given(st.lists(st.sampled_from(PARTS), max_size=60), st.integers(0, 4))
def test_a_cut_is_found_if_and_only_if_some_tag_is_too_long(parts, most):
    page = b"".join(parts)
    tags = [attributes(page, begin.end() - 1) for begin in re.finditer(rb"</?[a-z]", page)]
    assert bool(cuts(page, most)) == (max(tags, default=0) > most)


def test_names_of_tags_and_attributes_are_counted_once():
    assert names(b"<p a b=1 a>words and words</p><q a/b>no <!-- more <i c>") == 6
    assert names(b"".join(b"<x%d>" % n for n in range(9))) == 9
    assert names(b"".join(b"</x%d>" % n for n in range(99))) == 32  # half of the table
    assert names(b"<p " + b" ".join(b"a%d" % n for n in range(9)) + b">") == 10
