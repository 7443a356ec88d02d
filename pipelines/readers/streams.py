"""A file as a stream of decompressed pieces, in which damage is an item and not an exception.

A stream yields `bytes` of bounded size and, where bytes cannot be decoded, a `Gap`: a clipped
download must cost the records behind the damage, named in the ledger, and not the whole run.
Everything before the damage is yielded first.
"""

import zlib
from collections.abc import Generator, Iterator
from typing import BinaryIO, NamedTuple

from pipelines.readers.members import find_member

PIECE_BYTES = 1 << 20
"""Most bytes of one piece (1 MiB): a decompression bomb cannot take more memory at a time."""

_GZIP_READ_BYTES = 64 << 10
_READ_AGAIN_BYTES = 16 << 20
"""Bytes that may be read again beside as many as the file has up to there."""


class Gap(NamedTuple):
    """Bytes of a stream that could not be decoded.

    `resume` is the decompressed position at which the stream goes on, None where it ends here.
    """

    reason: str
    detail: str
    resume: int | None


Piece = bytes | Gap


def plain_pieces(file: BinaryIO, start: int) -> Iterator[Piece]:
    """Yield an uncompressed file from byte `start` on."""
    file.seek(start)
    while piece := file.read(PIECE_BYTES):
        yield piece


def gzip_pieces(file: BinaryIO, resume_at: bytes = b"") -> Iterator[Piece]:
    """Yield a gzip file (RFC 1952) of one or more members; zero padding after them is allowed.

    Args:
        file: the file, read from its first byte on.
        resume_at: what a member's content begins with at which the stream goes on behind damage;
            nothing, so that damage ends it.

    Gaps: `truncated_gzip` where the file ends inside a member, `corrupt_gzip` where it does not
    decode, a checksum differs or something else than a member follows.

    Behind damage nobody knows how much the damaged member held: positions go on by the bytes of
    the file, one for each from the member's first on. Damage shows late, perhaps beyond the next
    members' beginnings, so they are looked for from the damaged member's on; a file that has it
    read more than twice in this way, `_READ_AGAIN_BYTES` aside, is read on from the damage.
    """
    begin = position = again = most = 0
    while True:
        file.seek(begin)
        for piece in (content := _Members(file, begin)):
            position += len(piece)
            yield piece
        if content.fault is None:
            return
        reason, detail = content.fault
        most = max(most, content.at)
        back = most - content.member
        look_from = content.member + 1
        if again + back > most + _READ_AGAIN_BYTES:
            look_from = max(content.at, look_from)
        else:
            again += back
        found = find_member(file, look_from, resume_at) if resume_at else None
        if found is None:
            yield Gap(reason, detail, None)
            return
        detail += f"; the stream goes on with the member that begins at byte {found} of the file"
        position += found - content.member
        yield Gap(reason, detail, position)
        begin = found


class _Members:
    """The content of the members from where a file stands on, up to damage.

    Attributes:
        member: where in the file the last member begins.
        at: the byte of the file up to which it was read, or at which damage showed.
        fault: reason and detail of the damage; None if there was none.
    """

    def __init__(self, file: BinaryIO, begin: int) -> None:
        self._file = file
        self.member = self.at = begin
        self.fault: tuple[str, str] | None = None

    def __iter__(self) -> Iterator[bytes]:
        """Yield it in pieces."""
        member = zlib.decompressobj(wbits=31)
        between_members = False
        while data := self._file.read(_GZIP_READ_BYTES):
            end = self.at + len(data)
            while data:
                if between_members:
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    member, between_members = zlib.decompressobj(wbits=31), False
                    self.member = end - len(data)
                before = member.copy()
                try:
                    piece = member.decompress(data, PIECE_BYTES)
                except zlib.error as error:
                    good = yield from _up_to_damage(before, data)
                    self.at = end - len(data) + good
                    message = str(error).removeprefix("Error -3 while decompressing data: ")
                    detail = f"{message}, at byte {self.at} of the file"
                    self.fault = "corrupt_gzip", detail
                    return
                if piece:
                    yield piece
                between_members = member.eof
                data = member.unused_data if member.eof else member.unconsumed_tail
            self.at = end
        if not between_members:
            while piece := member.decompress(
                b"", PIECE_BYTES
            ):  # what the last call had no room for
                yield piece
            detail = f"the file ends inside a gzip member, at byte {self.at}"
            self.fault = "truncated_gzip", detail


def _up_to_damage(member: "zlib._Decompress", data: bytes) -> Generator[bytes, None, int]:
    """Yield what decodes before an error: zlib gives nothing of the call in which it fails.

    Returns the number of bytes that decode.
    """
    decoded = bytearray()
    for at in range(len(data)):
        tail = data[at : at + 1]
        while tail:
            try:
                decoded += member.decompress(tail, PIECE_BYTES)
            except zlib.error:
                yield bytes(decoded)
                return at
            tail = member.unconsumed_tail
            if len(decoded) >= PIECE_BYTES:
                yield bytes(decoded)
                decoded.clear()
    return len(data)
