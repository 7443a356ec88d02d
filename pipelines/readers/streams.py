"""A file as a stream of decompressed pieces, in which damage is an item and not an exception.

A stream yields `bytes` of bounded size and, where bytes cannot be decoded, a `Gap`: a clipped
download must cost the records behind the damage, named in the ledger, and not the whole run.
Everything before the damage is yielded first.
"""

import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

PIECE_BYTES = 1 << 20
"""Most bytes of one piece (1 MiB): a decompression bomb cannot take more memory at a time."""

_GZIP_READ_BYTES = 64 << 10


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


def gzip_pieces(file: BinaryIO) -> Iterator[Piece]:
    """Yield a gzip file (RFC 1952) of one or more members; zero padding after them is allowed.

    Gaps: `truncated_gzip` where the file ends inside a member, `corrupt_gzip` where it does not
    decode, a checksum differs or something else than a member follows. Both end the stream.
    """
    member = zlib.decompressobj(wbits=31)
    read = 0
    between_members = False
    while data := file.read(_GZIP_READ_BYTES):
        read += len(data)
        while data:
            if between_members:
                data = data.lstrip(b"\0")
                if not data:
                    break
                member, between_members = zlib.decompressobj(wbits=31), False
            before = member.copy()
            try:
                piece = member.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                yield from _up_to_damage(before, data)
                message = str(error).removeprefix("Error -3 while decompressing data: ")
                yield Gap(
                    "corrupt_gzip", f"{message}, in the {len(data)} bytes before {read}", None
                )
                return
            if piece:
                yield piece
            between_members = member.eof
            data = member.unused_data if member.eof else member.unconsumed_tail
    if not between_members:
        while piece := member.decompress(b"", PIECE_BYTES):  # what the last call had no room for
            yield piece
        yield Gap("truncated_gzip", f"the file ends inside a gzip member, at byte {read}", None)


def _up_to_damage(member: "zlib._Decompress", data: bytes) -> Iterator[bytes]:
    """Yield what decodes before an error: zlib gives nothing of the call in which it fails."""
    decoded = bytearray()
    for at in range(len(data)):
        tail = data[at : at + 1]
        while tail:
            try:
                decoded += member.decompress(tail, PIECE_BYTES)
            except zlib.error:
                yield bytes(decoded)
                return
            tail = member.unconsumed_tail
            if len(decoded) >= PIECE_BYTES:
                yield bytes(decoded)
                decoded.clear()
