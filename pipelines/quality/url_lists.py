"""Whether a document's address is in lists of sites that the user gives, such as UT1's categories.

    [signals.url_lists]
    adult = ["ut1/adult/domains", "ut1/adult/urls"]    # adds the column url_adult

    [filters]
    bounds.url_adult = { max = 0 }

RedPajama-v2 gives a document the category of its domain in the blacklist of the University of
Toulouse (`rps_doc_ut1_blacklist`). Assay ships no list; of each that is named a column says 1 where
it has the document's `url`, else 0, also where there is no `url`. So a site can be in several.

A list is files, or patterns of their names, in UTF-8 and not compressed. An entry is a line; blank
ones and those that begin with "#" are none. It is

* a domain ("example.org"): it holds for the host of that name and for all below ("a.example.org");
* an address with a path ("example.org/forum"): it holds for addresses that are it or go on from
  there with one of "/", "?", "&" and ";". A first label www, web or ftp (with digits) does not
  count on either side, as in squidGuard, for which these lists are made.

Compared are lower-case ASCII, hosts in another script as IDNA has them (RFC 3490), without scheme,
user, port, fragment, and a slash or dot at the end. No percent sign is decoded. Entries are held as
64-bit hashes, 8 bytes each (UT1's largest list has 4.6 million): that one of a billion addresses is
taken for another of them has a probability of 2e-4.
"""

import hashlib
import re
from array import array
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from pipelines.quality.list_file import sha256, stamp
from shards.errors import InputError

VERSION = "url-lists-v1"
PREFIX = "url_"

_SCHEME = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//")
_AUTHORITY = re.compile(r"[^/?\\]*")
_PORT = re.compile(r":[0-9]*$")
_MIRROR = re.compile(r"^(?:www|web|ftp)[0-9]*\.(?=.)")
_BOUNDARY = re.compile(r"[/?&;]")
_HOST_CHARS = 253
"""No host's name is longer (RFC 1035)."""
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"PK\x03\x04")
"""How gzip, zstd, bzip2, xz and zip begin."""

UInt64 = npt.NDArray[np.uint64]


class UrlList(NamedTuple):
    """The entries of a list: `hashes` uint64, rising; `depth`, the most boundaries of a path."""

    hashes: UInt64
    depth: int


def signals(lists: dict[str, list[str]]) -> dict[str, tuple[pa.DataType, str]]:
    """Return column → type and meaning, in the order of names."""
    meaning = "1 where the list has the document's url"
    return {f"{PREFIX}{name}": (pa.int64(), meaning) for name in sorted(lists)}


def definitions(lists: dict[str, list[str]]) -> dict[str, str]:
    """Return name → version and hash of what is in each list's files, in whatever order.

    Raises:
        InputError: a file cannot be read, or a list has none.
    """
    found = {}
    for name, patterns in sorted(lists.items()):
        hashes = sorted(map(sha256, find(name, patterns)))
        found[f"url_list {name}"] = (
            f"{VERSION} ({hashlib.sha256(''.join(hashes).encode()).hexdigest()})"
        )
    return found


def compute(
    lists: dict[str, list[str]], urls: Sequence[str | None]
) -> dict[str, npt.NDArray[np.int64]]:
    """Return the columns `signals`, int64 (n) of 0 and 1.

    Args:
        lists: name → paths or patterns.
        urls: n addresses; None where a document has none.

    Raises:
        InputError: a list cannot be read or has no entry.
    """
    known = {}
    for name, patterns in sorted(lists.items()):
        paths = _found(name, tuple(patterns))
        known[f"{PREFIX}{name}"] = load(name, paths, *map(stamp, paths))
    depth = max((own.depth for own in known.values()), default=0)
    rows, hashes = [], []
    for row, url in enumerate(urls):
        for candidate in candidates(url or "", depth) if known else ():
            rows.append(row)
            hashes.append(_hash(candidate))
    asked, places = np.array(hashes, np.uint64), np.array(rows, np.int64)
    columns = {}
    for column, own in known.items():
        at = np.minimum(np.searchsorted(own.hashes, asked), len(own.hashes) - 1)
        columns[column] = np.zeros(len(urls), np.int64)
        columns[column][places[own.hashes[at] == asked]] = 1
    return columns


def candidates(url: str, depth: int) -> Iterator[str]:
    """Yield all entries that would hold for an address.

    Args:
        url: the address.
        depth: the most boundaries ("/", "?", "&", ";") of an entry's path.
    """
    host, path = split(url)
    if not host or len(host) > _HOST_CHARS:
        return
    parent = host
    while parent:
        yield parent
        parent = parent.partition(".")[2]
    if depth and path:
        ends = [*[found.start() for found in _BOUNDARY.finditer(path)][1:], len(path)]
        for end in ends[:depth]:
            yield _site(host) + path[:end]


def split(url: str) -> tuple[str, str]:
    """Return host and path (with its query, "" or beginning with a boundary) of an address."""
    # bytes have lower case for ASCII only, which no version of Unicode changes
    plain = url.strip().encode("utf-8", "replace").lower().decode().partition("#")[0]
    scheme = _SCHEME.match(plain)
    plain = plain[scheme.end() :] if scheme else plain
    authority = _AUTHORITY.match(plain)
    host = authority.group() if authority else ""
    path = plain[len(host) :].replace("\\", "/").rstrip("/")
    host = _PORT.sub("", host.rpartition("@")[2]).rstrip(".")
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:  # a label that is too long or has no such form
            return "", ""
    return host, path


def find(name: str, patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the files of the list `name`.

    Raises:
        InputError: there are none.
    """
    from pipelines import files  # it brings Beam, which most processes do not need

    if not patterns:
        raise InputError(f"{_key(name)}: name at least one file")
    return tuple(path for path, _ in files.expand(list(patterns), _key(name)))


_found = cache(find)


def _key(name: str) -> str:
    return f"signals.url_lists.{name}"


@cache
def load(name: str, paths: tuple[str, ...], *_stamps: tuple[int, int]) -> UrlList:
    """Read the files of the list `name`, once a process.

    Raises:
        InputError: one cannot be read or is no UTF-8, or there is no entry.
    """
    hashes = array("Q")  # a list of as many integers takes five times the memory
    depth = 0
    for path in paths:
        for number, line in enumerate(_lines(path), 1):
            if number == 1 and line.startswith(_COMPRESSED):
                raise InputError(f"{path}: is compressed; unpack it ({_key(name)})")
            try:
                entry = line.decode().strip("\ufeff \t\r\n")
            except UnicodeDecodeError:
                raise InputError(f"{path}: line {number} is not UTF-8 ({_key(name)})") from None
            if not entry or entry.startswith("#"):
                continue
            host, rest = split(entry.removeprefix("*."))
            host = host.removeprefix(".")
            if rest:
                host = _site(host)
                depth = max(depth, len(_BOUNDARY.findall(rest)))
            if host:
                hashes.append(_hash(host + rest))
    if not hashes:
        raise InputError(
            f"{', '.join(paths)}: a list of sites without an entry ({_key(name)}); an entry is a"
            " domain or an address, one a line"
        )
    return UrlList(np.unique(np.frombuffer(hashes, np.uint64)), depth)


def _site(host: str) -> str:
    return _MIRROR.sub("", host)


def _hash(entry: str) -> int:
    return xxhash.xxh3_64_intdigest(entry.encode())


def _lines(path: str) -> Iterator[bytes]:
    from pipelines import files  # it brings Beam, which most processes do not need

    with files.open_file(path) as file:
        yield from file
