import io

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipelines.readers.streams import Gap
from pipelines.readers.zstd import Frame, walk_frames, zstd_pieces
from shards.errors import InputError
from tests.pipelines.readers.test_streams import LINES, split

SKIPPABLE = b"\x53\x2a\x4d\x18\x03\x00\x00\x00abc"


def frame(content: bytes, *, size: bool = True, checksum: bool = False, level: int = 3) -> bytes:
    compressor = zstandard.ZstdCompressor(
        level=level, write_content_size=size, write_checksum=checksum
    )
    return compressor.compress(content)


def walk(data: bytes) -> list[Frame]:
    return walk_frames("x.zst", io.BytesIO(data), len(data))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 255, 256, 300, 65791, 65792, 400_000]),
            st.booleans(),
            st.booleans(),
        ),
        max_size=4,
    )
)
def test_walk_and_decode_agree_with_what_was_written(specs):
    data, expected, contents = b"", [], b""
    for length, size, checksum in specs:
        content = (LINES * 10)[:length]
        piece = frame(content, size=size, checksum=checksum)
        expected.append(Frame(len(data), length if size else None))
        data += SKIPPABLE + piece
        contents += content
    found = walk(data)
    assert found == expected
    if data:
        assert split(zstd_pieces(io.BytesIO(data), 0, 0)) == (contents, [])
        last = found[-1]
        tail = contents[len(contents) - specs[-1][0] :]
        assert split(zstd_pieces(io.BytesIO(data), last.offset, 0)) == (tail, [])


def test_rle_and_raw_blocks_come_in_bounded_pieces():
    data = frame(bytes(8 << 20))
    pieces = list(zstd_pieces(io.BytesIO(data), 0, 0))
    assert b"".join(pieces) == bytes(8 << 20)
    assert max(map(len, pieces)) <= 128 << 10


@given(st.integers(0, 10_000), st.booleans(), st.booleans())
def test_truncated_anywhere(cut, size, checksum):
    data = frame(LINES * 20, size=size, checksum=checksum, level=1)
    data = data[: cut % len(data)]
    decoded, (gap,) = split(zstd_pieces(io.BytesIO(data), 0, 0))
    assert gap == Gap("truncated_zstd", f"the file ends inside a frame, at byte {len(data)}", None)
    assert (LINES * 20).startswith(decoded)
    assert len(walk(data)) <= 1


def test_a_wrong_checksum_costs_no_content():
    contents = [LINES * 10, b"second\n" + LINES * 20, b"third\n" + LINES]
    frames = [bytearray(frame(content, checksum=True, level=1)) for content in contents]
    frames[1][-1] ^= 0xFF
    decoded, (gap,) = split(zstd_pieces(io.BytesIO(b"".join(frames)), 0, 100))
    assert decoded == b"".join(contents)
    assert gap.reason == "corrupt_zstd"
    assert "checksum" in gap.detail
    assert gap.resume == 100 + len(contents[0]) + len(contents[1])


def test_the_stream_goes_on_behind_a_damaged_frame():
    second = b"second\n" + LINES
    for size, resume in ((True, 7 + 20 * len(LINES)), (False, None)):
        first = bytearray(frame(LINES * 20, size=size, level=1))
        first[20:300] = b"\xff" * 280
        decoded, (gap,) = split(zstd_pieces(io.BytesIO(bytes(first) + frame(second)), 0, 7))
        assert (gap.reason, gap.resume) == ("corrupt_zstd", resume)
        assert decoded == (second if size else b"")


def test_garbage_behind_a_frame():
    data = frame(LINES) + b"garbage!"
    decoded, (gap,) = split(zstd_pieces(io.BytesIO(data), 0, 0))
    assert decoded == LINES
    assert gap == Gap("corrupt_zstd", f"no frame begins at byte {len(data) - 8}, but b'garb'", None)
    assert walk(data) == [Frame(0, len(LINES))]


def test_frames_that_cannot_be_decoded_are_refused_by_name():
    dictionary = zstandard.train_dictionary(
        2048, [LINES[i : i + 300] for i in range(0, 40000, 300)]
    )
    data = zstandard.ZstdCompressor(dict_data=dictionary).compress(LINES)
    number = dictionary.dict_id()
    refused = rf"x\.zst: .* byte 0 was compressed with the dictionary {number}, which the file"
    with pytest.raises(InputError, match=refused):
        walk(data)
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=30, enable_ldm=False)
    wide = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(InputError, match=r"window of 1024 MiB .* above 128 MiB; .*--long=27"):
        walk(wide.compress(b"a") + wide.flush())


@pytest.mark.parametrize("pack", [bytes, zstandard.compress])
@pytest.mark.parametrize("write_id", [True, False])
def test_a_file_that_begins_with_its_dictionary_is_read_with_it(pack, write_id):
    dictionary = zstandard.train_dictionary(
        2048, [LINES[i : i + 300] for i in range(0, 40000, 300)]
    )
    own = pack(dictionary.as_bytes())
    compressor = zstandard.ZstdCompressor(dict_data=dictionary, write_dict_id=write_id)
    frames = [compressor.compress(LINES[at : at + 2000]) for at in range(0, 8000, 2000)]
    head = b"\x5d\x2a\x4d\x18" + len(own).to_bytes(4, "little") + own
    data = head + b"".join(frames)
    found = walk(data)
    assert [at.content_bytes for at in found] == [2000] * 4
    assert split(zstd_pieces(io.BytesIO(data), 0, 0)) == (LINES[:8000], [])
    assert split(zstd_pieces(io.BytesIO(data), found[2].offset, 4000)) == (LINES[4000:8000], [])
    if write_id:
        other = zstandard.train_dictionary(2048, [LINES[i : i + 99] for i in range(0, 40000, 99)])
        stranger = zstandard.ZstdCompressor(dict_data=other).compress(LINES)
        assert walk(data + stranger)[:-1] == found
        decoded, (gap,) = split(zstd_pieces(io.BytesIO(data + stranger + frames[0]), 0, 0))
        assert decoded == LINES[:8000] + LINES[:2000]
        assert gap.reason == "corrupt_zstd"


@pytest.mark.parametrize(
    "own",
    [
        b"",
        b"no dictionary",
        b"\x37\xa4\x30\xec\1\0\0\0 none",
        zstandard.compress(b"none"),
        zstandard.compress(LINES)[:40],
    ],
)
def test_a_skippable_frame_that_holds_no_dictionary_is_skipped(own):
    data = b"\x5d\x2a\x4d\x18" + len(own).to_bytes(4, "little") + own + frame(LINES)
    assert split(zstd_pieces(io.BytesIO(data), 0, 0)) == (LINES, [])
    assert [at.content_bytes for at in walk(data)] == [len(LINES)]


@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_behind_any_damaged_frame_the_stream_goes_on_where_it_may(flip, size, checksum):
    frames = [frame(LINES[at : at + 3000], size=size, checksum=checksum) for at in (0, 3000, 6000)]
    damaged = bytearray(frames[1])
    flip %= 8 * len(damaged)
    damaged[flip // 8] ^= 1 << flip % 8
    data = frames[0] + damaged + frames[2]
    last = 0
    for piece in zstd_pieces(io.BytesIO(data), 0, 0, resume_anywhere=True):
        if isinstance(piece, Gap) and piece.resume is not None:
            assert piece.resume >= last
            last = piece.resume
        elif not isinstance(piece, Gap):
            last += len(piece)
