"""Where in a damaged gzip file a member begins that can be read on its own.

Crawlers write a member for each record, so that a reader can go on behind a damaged one.
"""

import zlib
from typing import BinaryIO

_MAGIC = b"\x1f\x8b\x08"
_READ_BYTES = 64 << 10
_PROBE_BYTES = 2048
"""Bytes from which a member's first content must come: names and comments in its head, the tables
of its first block (about 300 bytes) and the content itself. Bounds the work of a place that only
looks like a member.
"""


def find_member(file: BinaryIO, begin: int, content: bytes) -> int | None:
    """Return the first byte of the file, from `begin` on, at which a member begins whose content
    begins with `content`; None if there is none.

    The three bytes that begin a member stand anywhere by chance, once in 16 MB, so each is tried.
    """
    file.seek(begin)
    data = b""
    while True:
        read = file.read(_READ_BYTES)
        data += read
        # The last bytes wait for what follows them, unless nothing does.
        usable = len(data) if not read else max(len(data) - _PROBE_BYTES, 0)
        at = data.find(_MAGIC, 0, usable + len(_MAGIC) - 1)
        while 0 <= at < usable:
            if _holds(data[at : at + _PROBE_BYTES], content):
                return begin + at
            at = data.find(_MAGIC, at + 1, usable + len(_MAGIC) - 1)
        if not read:
            return None
        begin += usable
        data = data[usable:]


def _holds(member: bytes, content: bytes) -> bool:
    try:
        return zlib.decompressobj(wbits=31).decompress(member, len(content)) == content
    except zlib.error:
        return False
