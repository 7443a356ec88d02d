"""What a fastText model file says of itself, read without fastText.

fastText believes a file: of one that was cut off it reads a word that never ends, until memory is
full. So a file is walked before it is loaded, by the format of its version 12 (what
`FastText::saveModel` writes, in C++; little-endian):

    magic, version: int32
    arguments: 12 int32 and a float64, among them the model, 3 for a supervised one
    words, of which words proper and labels: 3 int32; tokens, pruned: 2 int64
    each word: its bytes, a zero, its count: int64, its kind: int8, 1 for a label
    where `pruned` is above 0, as many pairs of int32
    input matrix, output matrix: a bool that says whether it is quantised, and the matrix
"""

import mmap
import struct

_MAGIC, _VERSION, _SUPERVISED = 793_712_314, 12, 3
_HEAD = struct.Struct("<2i12id3i2q")
_MODEL = 9
"""Where in the head the kind of the model is: behind magic, version, dim, ws, … and loss."""
_LOSSES = range(1, 5)
_LABEL = 1
_CENTROIDS = 256


def labels(data: bytes | mmap.mmap) -> list[str]:
    """Return the labels of a supervised model in the order of the file.

    Raises:
        ValueError: it is no such model, or is not whole; says why.
    """
    if len(data) < _HEAD.size:
        raise ValueError(f"{len(data)} bytes are too few")
    head = _HEAD.unpack_from(data)
    if head[:2] != (_MAGIC, _VERSION):
        raise ValueError(f"begins with {data[:8]!r}")
    if head[_MODEL] != _SUPERVISED:
        raise ValueError("is a model of words, which has no labels")
    loss, _, bucket, _, maxn = head[_MODEL - 1 : _MODEL + 4]
    if loss not in _LOSSES:
        raise ValueError(f"has a loss of number {loss}")
    if bucket <= 0 and (maxn > 0 or head[_MODEL - 2] > 1):  # fastText divides by it
        raise ValueError(f"has n-grams, and {bucket} buckets for them")
    *_, words, _, n_labels, _, pruned = head
    if not 0 < n_labels <= words:
        raise ValueError(f"has {n_labels} labels in {words} words")
    found = []
    at = _HEAD.size
    for _ in range(words):
        end = data.find(b"\0", at)
        if end < 0 or end + 10 > len(data):
            raise ValueError("ends in its words")
        if data[end + 9] == _LABEL:
            found.append(data[at:end].decode(errors="replace"))
        at = end + 10
    at += 8 * max(pruned, 0)
    for name in ("input", "output"):
        at = _behind_matrix(data, at, name, head[2])
    if at != len(data):
        raise ValueError(f"has {len(data)} bytes and not {at}, as it says")
    if len(found) != n_labels:
        raise ValueError(f"says that {n_labels} of its words are labels, and {len(found)} are")
    return found


def _behind_matrix(data: bytes | mmap.mmap, at: int, name: str, dimensions: int) -> int:
    """Return where a matrix ends that begins at `at`, its bool included."""
    if at > len(data):
        raise ValueError(f"ends before its {name} matrix")
    try:
        (quantised,) = struct.unpack_from("<?", data, at)
        if not quantised:
            rows, columns = struct.unpack_from("<2q", data, at + 1)
            normed, codes = False, 0
        else:
            normed, rows, columns, codes = struct.unpack_from("<?2qi", data, at + 1)
        if columns != dimensions:  # fastText reads so many of each row
            raise ValueError(f"its {name} matrix has {columns} columns for {dimensions} dimensions")
        if min(rows, codes) >= 0:
            if not quantised:
                return int(at + 17 + 4 * rows * columns)
            at = _behind_quantizer(data, at + 22 + codes)
            return _behind_quantizer(data, at + rows) if normed else at
    except struct.error:
        raise ValueError(f"ends before its {name} matrix") from None
    raise ValueError(f"its {name} matrix has a size below 0")


def _behind_quantizer(data: bytes | mmap.mmap, at: int) -> int:
    """Return where the centroids of a product quantiser end."""
    if at > len(data):
        raise ValueError("ends in a matrix")
    dimensions, *_ = struct.unpack_from("<4i", data, at)
    return int(at + 16 + 4 * dimensions * _CENTROIDS)
