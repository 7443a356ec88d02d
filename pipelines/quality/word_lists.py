"""How many words of a document are in lists that the user gives, such as bad words or stop words.

    [signals.word_lists]
    bad = "lists/en.txt"          # adds the column list_bad

RedPajama-v2 counts the words of a public list of bad words (`rps_doc_ldnoobw_words`) and takes the
share of stop words (`rps_doc_stop_word_fraction`), C4 drops pages by such a list. Assay ships none:
lists have licences, languages and opinions. With one, `list_bad` is the first; a bound of
`max = 0` is C4's rule; and `list_stop / gopher_words > 0.2` in an expression is the share.

A list is UTF-8, an entry a line, blank lines aside. Here a *word* is what stands between ASCII
white space, without ASCII punctuation around it and in ASCII lower case; an entry is one word or
several in a row. A place counts once if an entry begins there, or several do.
"""

import string
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.quality.list_file import sha256, stamp
from shards.errors import InputError

VERSION = "word-lists-v1"
PREFIX = "list_"
_AROUND = string.punctuation.encode()

WordList = dict[bytes, list[tuple[bytes, ...]]]
"""First word of an entry → the words behind it, of each entry that begins so."""


def signals(lists: dict[str, str]) -> dict[str, tuple[pa.DataType, str]]:
    """Return column → type and meaning, in the order of names."""
    meaning = "places where an entry of the list stands"
    return {f"{PREFIX}{name}": (pa.int64(), meaning) for name in sorted(lists)}


def definitions(lists: dict[str, str]) -> dict[str, str]:
    """Return name → version and hash of what is in each list.

    Raises:
        InputError: a list cannot be read.
    """
    found = {}
    for name, path in sorted(lists.items()):
        try:
            hashed = sha256(path)
        except InputError as error:
            raise InputError(f"signals.word_lists.{name}: {error}") from None
        found[f"word_list {name}"] = f"{VERSION} ({hashed})"
    return found


def compute(
    lists: dict[str, str], data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Return the columns `signals`, int64 (n).

    Args:
        lists: name → path.
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.

    Raises:
        InputError: a list cannot be read or has no entry.
    """
    known = {f"{PREFIX}{name}": load(path, *stamp(path)) for name, path in sorted(lists.items())}
    columns = {column: np.zeros(len(offsets) - 1, np.int64) for column in known}
    view = data.data
    for row, (begin, end) in enumerate(pairwise(offsets.tolist())):
        words = words_of(bytes(view[begin:end]))
        for column, entries in known.items():
            columns[column][row] = count(words, entries)
    return columns


def words_of(text: bytes) -> list[bytes]:
    """Return the words of a text or of an entry; one of punctuation alone is empty."""
    return [word.strip(_AROUND) for word in text.lower().split()]


def count(words: list[bytes], entries: WordList) -> int:
    """Return at how many places of a document an entry begins."""
    found = 0
    for at in [at for at, word in enumerate(words) if word in entries]:
        found += any(
            tuple(words[at + 1 : at + 1 + len(rest)]) == rest for rest in entries[words[at]]
        )
    return found


@cache
def load(path: str, *_stamp: int) -> WordList:
    """Read a list, once a process.

    Raises:
        InputError: it cannot be read, is no UTF-8 or has no entry.
    """
    raw = _read(path)
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
    entries: WordList = {}
    for line in raw.removeprefix(b"\xef\xbb\xbf").splitlines():
        first, *rest = words_of(line) or [b""]
        if first:
            entries.setdefault(first, []).append(tuple(rest))
    if not entries:
        raise InputError(f"{path}: a word list without an entry")
    return entries


def _read(path: str) -> bytes:
    from pipelines import files  # it brings Beam, which most processes do not need

    return files.read_bytes(path)
