"""The kernel that compares encoded documents with their text, byte by byte."""

import numpy as np
import numpy.typing as npt

from shards.jit import kernel


@kernel(
    [
        f"void(uint8[::1], int64[::1], {ids}[::1], int64[::1], uint8[::1], int64[::1], int64,"
        " boolean[::1])"
        for ids in ("uint16", "uint32")
    ]
)
def compare(
    text: npt.NDArray[np.uint8],
    text_offsets: npt.NDArray[np.int64],
    ids: npt.NDArray[np.unsignedinteger],
    offsets: npt.NDArray[np.int64],
    pieces: npt.NDArray[np.uint8],
    piece_offsets: npt.NDArray[np.int64],
    eos_id: int,
    equal: npt.NDArray[np.bool_],
) -> None:
    """Set `equal[i]` to whether the tokens of document i spell its text and end with one EOS.

    Args:
        text: uint8, UTF-8 of all documents.
        text_offsets: int64[n + 1]; document i is `text[text_offsets[i]:text_offsets[i + 1]]`.
        ids: uint16 or uint32, tokens of all documents.
        offsets: int64[n + 1]; document i has `ids[offsets[i]:offsets[i + 1]]`.
        pieces: uint8, the bytes that each id stands for, one after another.
        piece_offsets: int64[vocabulary size + 1]; special ids stand for no bytes.
        eos_id: the id that ends a document.
        equal: bool[n], written.
    """
    vocabulary = len(piece_offsets) - 1
    for i in range(len(equal)):
        equal[i] = False
        position, end = text_offsets[i], text_offsets[i + 1]
        last = offsets[i + 1] - 1
        if last < offsets[i] or ids[last] != eos_id:
            continue
        fits = True
        for j in range(offsets[i], last):
            if ids[j] >= vocabulary:
                fits = False
                break
            first, stop = piece_offsets[ids[j]], piece_offsets[ids[j] + 1]
            if first == stop or position + stop - first > end:  # a special id, or too much text
                fits = False
                break
            for k in range(first, stop):
                if text[position] != pieces[k]:
                    fits = False
                position += 1
            if not fits:
                break
        equal[i] = fits and position == end
