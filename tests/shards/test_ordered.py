"""A view with an order of its own: what is copied and where a trace looks are the same samples."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shards.dataset import TokenDataset, TokenView
from shards.loader import Loader
from shards.ordered import OrderedView
from shards.view_file import read_view, write_view

SHAPE = {"sequence_length": 64, "batch_size": 4, "seed": 5}


def some_documents(dataset, data):
    """Draw segments of whole documents in any order, some of them twice."""
    chosen = data.draw(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2990)), min_size=2))
    rows = data.draw(st.integers(1, 9))
    segments = []
    for shard, row in chosen:
        offsets = dataset.shard(shard).offsets
        segments.append((shard, row, rows, offsets[row], offsets[row + rows] - offsets[row]))
    return np.array(segments, np.int64)


@given(st.data(), st.integers(2, 7))
def test_a_place_names_the_tokens_that_a_batch_holds(big_folder, data, stages):
    dataset = TokenDataset.open(big_folder)
    view = OrderedView(dataset, "True", some_documents(dataset, data), 0, 0, stages)
    if view.tokens < 2:
        return
    loader = Loader(view, **SHAPE)
    for _ in range(3):
        batch = loader.next()
        for row, g in enumerate(batch.indices.tolist()):
            place = loader.place(g)
            ((start, length),) = place.ranges
            assert start == place.sample * 64
            expected = view.tokens_at(start, length).tolist()
            assert batch.tokens[row, : batch.lengths[row]].tolist() == expected


@given(st.data(), st.sampled_from([0, 4]))
def test_a_view_comes_back_from_its_file(big_folder, tmp_path_factory, data, stages):
    dataset = TokenDataset.open(big_folder)
    segments = some_documents(dataset, data)
    path = tmp_path_factory.mktemp("view") / "documents.npz"
    documents = {(s, r + i) for s, r, n, *_ in segments.tolist() for i in range(n)}
    sizes = [np.asarray(dataset.shard(i).batch.column("bytes")) for i in (0, 1)]
    size = sum(int(sizes[s][r : r + n].sum()) for s, r, n, *_ in segments.tolist())
    write_view(path, TokenView(dataset, "True", segments, 1, 1, "a draw"))
    if stages:
        write_view(path, OrderedView(dataset, "True", segments, 1, 1, stages, "a draw"))
    found = read_view(path, dataset, "True", "a draw")
    assert np.array_equal(found.segments, segments)
    assert (found.documents, found.bytes, found.draw) == (len(documents), size, "a draw")
    assert getattr(found, "stages", 0) == stages
