import zlib

from hypothesis import given
from hypothesis import strategies as st

from pipelines.readers import codings
from pipelines.readers.sniff import binary, is_text


@given(st.text(max_size=200), st.integers(0, 11))
def test_nothing_compressed_is_taken_for_a_text(text, level):
    raw = text.encode()
    packed = [zlib.compress(raw, min(level, 9)), zlib.compress(raw, min(level, 9))[2:-4]]
    if module := codings.brotli():
        packed.append(module.compress(raw, quality=level))
    assert not any(map(is_text, packed))


@given(st.text(st.characters(min_codepoint=32, exclude_categories=["C"]), min_size=1))
def test_no_text_is_taken_for_bytes_of_something_else(body):
    for codec in ("utf-8", "utf-16"):
        assert binary(body.encode(codec), None) is None or body.startswith(("%PDF", "GIF8", "PK"))


def test_a_text_that_shifts_out_of_ascii_is_no_bytes_of_something_else():
    body = "한 글 자 마 다 " * 20
    assert binary(body.encode("iso2022_kr"), "iso-2022-kr") is None
    assert binary(bytes(range(15)) * 9, "iso-2022-kr") is not None
