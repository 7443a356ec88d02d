"""Zstandard at the level of frames and blocks (RFC 8878, section 3.1).

Walking the headers, without decoding, finds where frames begin and what they hold: a file of many
frames can be read by many workers. Decoding block by block bounds memory (a block holds at most
128 KiB), finds a clipped file exactly, and loses nothing that stands before a damaged block.

A file whose frames need a dictionary is read where its first frame is a skippable one that holds
it, as it is or compressed (IIPC, "Use of Zstandard in WARC files"; ArchiveTeam's files).
"""

import itertools
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import zstandard

from pipelines.readers.formats import ZSTD_MAGIC, is_zstd_magic
from pipelines.readers.streams import Gap, Piece
from shards.errors import InputError

MAX_WINDOW_BYTES = 128 << 20
"""Largest window that is decoded, as in the zstd command (`--long=27`): a worker's memory."""

_MAX_BLOCK_BYTES = 128 << 10
_DICTIONARY_FRAME = b"\x5d\x2a\x4d\x18"
_DICTIONARY_MAGIC = b"\x37\xa4\x30\xec"
_MAX_DICTIONARY_BYTES = 16 << 20


class Frame(NamedTuple):
    """One data frame: where it (or a skippable frame before it) begins in the file, and the bytes
    of its content if its header states them (see `_credible`).
    """

    offset: int
    content_bytes: int | None


class _Header(NamedTuple):
    raw: bytes
    window_bytes: int
    content_bytes: int | None
    is_single_segment: bool
    has_checksum: bool
    dictionary: int


class _DamageError(Exception):
    """The bytes at this place are no valid frame."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.gap = Gap(reason, detail, None)


def walk_frames(path: str, file: BinaryIO, size: int) -> list[Frame]:
    """Find the data frames of a zstd file by its frame and block headers only.

    Where the file is clipped or its structure is broken the list ends with the frame in which
    that happens; `zstd_pieces` reports it.

    Raises:
        InputError: the first frame needs a dictionary that is not the file's own, or a window
            above `MAX_WINDOW_BYTES`. Others that do are gaps, since one wrong bit can say so.
    """
    frames: list[Frame] = []
    own = _own_dictionary(file)
    known = {0, own.dict_id()} if own is not None else {0}
    file.seek(0)
    blocks: int | None = 0
    while blocks is not None:
        offset = file.tell()
        try:
            header = _read_header(file)
        except _DamageError:
            break
        if header is None:
            break
        blocks = _walk_blocks(file, size)
        if blocks is not None:
            header = _credible(header, blocks)
            file.seek(4 * header.has_checksum, 1)
        if not frames:  # a later one that differs is damaged, which ends no job
            _refuse(path, offset, header, known)
        frames.append(Frame(offset, header.content_bytes))
    return frames


def zstd_pieces(
    file: BinaryIO, offset: int, position: int, *, resume_anywhere: bool = False
) -> Iterator[Piece]:
    """Yield the content of a zstd file from the frame at byte `offset` on.

    Args:
        file: the file.
        offset: where a frame begins, in bytes of the file.
        position: where its content begins, in decompressed bytes.
        resume_anywhere: go on behind a damaged frame that does not state its content size, too;
            positions go on by the bytes of the file, one for each of the frame.

    Gaps: `corrupt_zstd` where a block does not decode or a checksum differs (the stream goes on
    at the next frame if the damaged one states its content size) or where no frame begins, and
    `truncated_zstd` where the file ends inside a frame.
    """
    own = _own_dictionary(file)
    file.seek(offset)
    decompressor = zstandard.ZstdDecompressor(dict_data=own, max_window_size=MAX_WINDOW_BYTES)
    frames = 0
    while True:
        at = file.tell()
        try:
            header = _read_header(file, allow_end=frames > 0)
        except _DamageError as damage:
            yield damage.gap
            return
        if header is None:
            return
        frames += 1
        decoder = decompressor.decompressobj()
        content = _frame_pieces(file, decoder, header)
        begin = position
        known = header.content_bytes
        for piece in content:
            if isinstance(piece, Gap):
                most = piece.resume
                resume = None if known is None or most is None else begin + min(known, most)
                if resume_anywhere and piece.resume is not None:
                    # A size that is less than what was decoded is damaged itself.
                    ahead = position + file.tell() - at
                    resume = ahead if resume is None or resume < position else resume
                yield Gap(piece.reason, piece.detail, resume)
                if resume is None:
                    return
                position = resume
                continue
            if known is not None and not resume_anywhere:
                # More than the frame states is damaged, and at the positions of the next frame.
                piece = piece[: begin + known - position]  # noqa: PLW2901
            position += len(piece)
            if piece:
                yield piece


def _frame_pieces(
    file: BinaryIO, decoder: "zstandard.ZstdDecompressionObj", header: _Header
) -> Iterator[Piece]:
    """Decode one frame whose header was read; after a damaged block, skip to the frame's end.

    A Gap's `resume` is None where the frame's end could not be found, else the most bytes that its
    blocks can hold.
    """
    at = file.tell()
    gap: Gap | None = None
    count = 0
    try:
        for compressed in itertools.chain(
            [header.raw], _parts(file, has_checksum=header.has_checksum)
        ):
            count += 1
            if gap is not None:  # to the frame's end
                continue
            try:
                content = decoder.decompress(compressed)
            except zstandard.ZstdError as error:
                message = str(error).removeprefix("zstd decompressor error: ")
                gap = Gap("corrupt_zstd", f"{message}, in the block at byte {at}", None)
                continue
            at = file.tell()
            if content:
                yield content
    except _DamageError as damage:
        if gap is None:
            yield damage.gap
        else:
            yield gap._replace(detail=f"{gap.detail}; {damage.gap.detail}")
        return
    if gap is not None:
        blocks = count - 1 - header.has_checksum
        yield gap._replace(resume=blocks * _MAX_BLOCK_BYTES)


def _parts(file: BinaryIO, *, has_checksum: bool) -> Iterator[bytes]:
    """Yield what follows a frame header: each block, then the checksum.

    One by one, so that a decoder that fails gave everything before already.
    """
    last = False
    while not last:
        last, payload, raw = _read_block_header(file)
        yield raw + _read_exactly(file, payload)
    if has_checksum:
        yield _read_exactly(file, 4)


def _read_exactly(file: BinaryIO, count: int) -> bytes:
    at = file.tell()
    data = file.read(count)
    if len(data) < count:
        raise _DamageError(
            "truncated_zstd", f"the file ends inside a frame, at byte {at + len(data)}"
        )
    return data


def _read_header(file: BinaryIO, *, allow_end: bool = True) -> _Header | None:
    """Read a frame header, past skippable frames; None at the end of the file."""
    while True:
        at = file.tell()
        magic = file.read(4)
        if not magic and allow_end:
            return None
        if len(magic) < 4:
            raise _DamageError(
                "truncated_zstd", f"the file ends inside a frame, at byte {at + len(magic)}"
            )
        if magic == ZSTD_MAGIC:
            break
        if not is_zstd_magic(magic):
            raise _DamageError("corrupt_zstd", f"no frame begins at byte {at}, but {magic!r}")
        length = int.from_bytes(_read_exactly(file, 4), "little")
        file.seek(length, 1)
        allow_end = True
    descriptor = _read_exactly(file, 1)
    bits = descriptor[0]
    single_segment = bool(bits & 0x20)
    if bits & 0x08:
        raise _DamageError("corrupt_zstd", f"reserved bit set in the frame header at byte {at}")
    window = b"" if single_segment else _read_exactly(file, 1)
    dictionary = _read_exactly(file, (0, 1, 2, 4)[bits & 3])
    size = _read_exactly(file, (1 if single_segment else 0, 2, 4, 8)[bits >> 6])
    content_bytes = int.from_bytes(size, "little") + (256 if len(size) == 2 else 0)
    if window:
        base = 1 << (10 + (window[0] >> 3))
        window_bytes = base + (base >> 3) * (window[0] & 7)
    else:
        window_bytes = content_bytes
    return _Header(
        raw=magic + descriptor + window + dictionary + size,
        window_bytes=window_bytes,
        content_bytes=content_bytes if size else None,
        is_single_segment=single_segment,
        has_checksum=bool(bits & 0x04),
        dictionary=int.from_bytes(dictionary, "little"),
    )


def _read_block_header(file: BinaryIO) -> tuple[bool, int, bytes]:
    """Return whether the block is the frame's last, its payload's bytes, and the raw header."""
    at = file.tell()
    raw = _read_exactly(file, 3)
    bits = int.from_bytes(raw, "little")
    last, kind, size = bool(bits & 1), (bits >> 1) & 3, bits >> 3
    if kind == 3 or size > _MAX_BLOCK_BYTES:
        raise _DamageError("corrupt_zstd", f"no valid block begins at byte {at}")
    return last, 1 if kind == 1 else size, raw


def _walk_blocks(file: BinaryIO, size: int) -> int | None:
    """Go to the end of a frame's blocks and return how many they are; None if there is no end."""
    blocks, last = 0, False
    while not last:
        try:
            last, payload, _ = _read_block_header(file)
        except _DamageError:
            return None
        if file.seek(payload, 1) > size:
            return None
        blocks += 1
    return blocks


def _credible(header: _Header, blocks: int) -> _Header:
    """Return a header that states no more content than the frame's blocks can hold.

    A size above that is damaged: believed, it would move what is behind the frame out of reach, or
    have a frame of one segment refused for its window. `zstd_pieces` goes by the same rule, so that
    the positions behind the frame are the same in every range.
    """
    most = blocks * _MAX_BLOCK_BYTES
    if header.content_bytes is None or header.content_bytes <= most:
        return header
    window_bytes = most if header.is_single_segment else header.window_bytes
    return header._replace(content_bytes=most, window_bytes=window_bytes)


def _own_dictionary(file: BinaryIO) -> zstandard.ZstdCompressionDict | None:
    """Return the dictionary with which a file begins; None if it does not begin with one."""
    file.seek(0)
    head = file.read(8)
    size = int.from_bytes(head[4:], "little")
    if head[:4] != _DICTIONARY_FRAME or size > _MAX_DICTIONARY_BYTES:
        return None
    data = file.read(size)
    if data.startswith(ZSTD_MAGIC):
        decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        try:
            with decoder.stream_reader(data) as reader:
                data = reader.read(_MAX_DICTIONARY_BYTES)
        except zstandard.ZstdError:
            return None
    if not data.startswith(_DICTIONARY_MAGIC):
        return None
    own = zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_FULLDICT)
    try:
        zstandard.ZstdDecompressor(dict_data=own).decompressobj()
    except zstandard.ZstdError:  # what follows the first bytes is none
        return None
    return own


def _refuse(path: str, offset: int, header: _Header, known: set[int]) -> None:
    """Raise for frames that are intact but cannot be decoded here; `known` are dictionaries."""
    if header.dictionary not in known:
        raise InputError(
            f"{path}: the zstd frame at byte {offset} was compressed with the dictionary"
            f" {header.dictionary}, which the file does not begin with; decompress the file with it"
            " first"
        )
    if header.window_bytes > MAX_WINDOW_BYTES:
        raise InputError(
            f"{path}: the zstd frame at byte {offset} needs a window of"
            f" {header.window_bytes >> 20} MiB to decompress, above {MAX_WINDOW_BYTES >> 20} MiB;"
            " compress the file again with --long=27 or less"
        )
