import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.readers import codings
from pipelines.readers.codings import PageError, dechunk, decompress


@pytest.mark.parametrize(
    "text",
    [
        b"1\n00:00:01 first subtitle\n\n2\n00:00:03 second\n",
        b"1\r\n00:00:01 first subtitle\r\n\r\n2\r\n00:00:03 second\r\n",
        b"2024\nJanuary report\n",
        b"2024\r\nJanuary report\r\n",
        b"0\r\nis the first number\r\n",
        b"1\na\n2\nbc\n",
        b"add\r\n",
        b"x",
    ],
)
def test_a_text_that_begins_with_digits_has_no_chunks(text):
    assert dechunk(text, plain=True) == text


@pytest.mark.parametrize(
    "body", [b"0\r\n\r\n", b"0\r\n", b"000\r\nX-Time: 1\r\n\r\n", b"0;x\r\n\r\n\r\n"]
)
def test_no_chunks_are_an_empty_page(body):
    for plain in (True, False):
        assert dechunk(body, plain=plain) == b""


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4), st.data())
def test_chunks_that_are_cut_off_give_what_there_is_and_broken_ones_a_reason(parts, data):
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]
    whole = b"".join([*chunks, b"0\r\n\r\n"])
    text = b"".join(parts)
    assert dechunk(whole, plain=True) == text
    cut = data.draw(st.integers(len(chunks[0]), len(whole)))
    assert text.startswith(dechunk(whole[:cut], plain=True))
    gone = sum(map(len, chunks[: data.draw(st.integers(1, len(chunks)))]))
    with pytest.raises(PageError) as caught:
        dechunk(whole[:gone] + b"zzz\r\n" + whole[gone:], plain=True)
    reason, detail = caught.value.args
    assert reason == "bad_http"
    assert f"end at byte {gone} of {len(whole) + 5}, where" in detail


def test_many_small_members_are_read_in_linear_work(monkeypatch):
    """zlib copies what is left of its input behind each member."""
    given_ = []
    plain = zlib.decompressobj

    class Counting:
        def __init__(self, wbits):
            self.member = plain(wbits=wbits)

        def decompress(self, piece, room):
            given_.append(len(piece))
            return self.member.decompress(piece, room)

        def __getattr__(self, name):
            return getattr(self.member, name)

    monkeypatch.setattr(codings.zlib, "decompressobj", Counting)
    assert decompress(gzip.compress(b"a") * 5000, "gzip", 5000) == b"a" * 5000
    assert sum(given_) <= 5000 * 1024
    with pytest.raises(PageError, match="record_too_large"):
        decompress(gzip.compress(b"a") * 5000, "gzip", 4999)
