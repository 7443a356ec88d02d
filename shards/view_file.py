"""Which documents a view has, as a file beside what read them: for views that no selection gives.

A draw, a band, a mixture or a curriculum of a study follows from more than an expression over
columns. So a run keeps the runs of rows that its arm consists of, and a trace needs to know of no
law by which they were drawn. The view's `selection_hash` says whether the file is the right one.
"""

import io
import zipfile
from pathlib import Path

import numpy as np

from shards.atomic import write_atomic
from shards.dataset import Int64, TokenDataset, TokenView
from shards.errors import CorruptError
from shards.ordered import OrderedView

VIEW = "documents.npz"
"""The file's name in the folder of a run."""


def write_view(path: Path, view: TokenView) -> None:
    """Write shard, first row and rows of each segment, int64[G, 3] in the view's order.

    The first column and the second are written as differences, which compress well.
    """
    rows = view.segments[:, :3]
    stages = view.stages if isinstance(view, OrderedView) else 0
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        shard=np.diff(rows[:, 0], prepend=0),
        row=np.diff(rows[:, 1], prepend=0),
        rows=rows[:, 2],
        stages=np.int64(stages),
    )
    write_atomic(path, buffer.getvalue())


def read_view(path: Path, dataset: TokenDataset, expression: str, draw: str = "all") -> TokenView:
    """Read the view of `dataset` that was written; `expression` and `draw` describe it.

    Raises:
        CorruptError: the file is not such a one, or names rows that the dataset does not have.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            shard, row = np.cumsum(arrays["shard"]), np.cumsum(arrays["row"])
            rows, stages = arrays["rows"].astype(np.int64), int(arrays["stages"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CorruptError(f"{path}: not the documents of a run: {error}; restore it") from None
    counts = np.array([entry.documents for entry in dataset.entries], np.int64)
    known = (shard >= 0) & (shard < len(counts)) & (row >= 0) & (rows >= 0)
    if not known.all() or (row + rows > counts[shard]).any():
        raise CorruptError(
            f"{path}: names rows that {dataset.location} does not have; restore it, or say which"
            " dataset the run read"
        )
    segments, size = np.zeros((len(shard), 5), np.int64), 0
    segments[:, 0], segments[:, 1], segments[:, 2] = shard, row, rows
    documents = 0
    for index in np.unique(shard).tolist():
        own = shard == index
        opened = dataset.shard(index)
        offsets = np.asarray(opened.offsets, np.int64)
        first, end = row[own], row[own] + rows[own]
        segments[own, 3], segments[own, 4] = offsets[first], offsets[end] - offsets[first]
        copies = _copies(first, end, int(counts[index]))
        documents += int(np.count_nonzero(copies))
        size += int((np.asarray(opened.batch.column("bytes")) * copies).sum())
    if stages:
        return OrderedView(dataset, expression, segments, documents, size, stages, draw)
    return TokenView(dataset, expression, segments, documents, size, draw)


def _copies(first: Int64, end: Int64, count: int) -> Int64:
    """Return in how many of the ranges [first, end) each of `count` rows is: int64[count]."""
    edges = np.zeros(count + 1, np.int64)
    np.add.at(edges, first, 1)
    np.add.at(edges, end, -1)
    return np.cumsum(edges)[:-1]
