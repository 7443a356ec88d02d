"""What one process can see of a cut; `test_ranks.py` has the runs of two."""

from types import SimpleNamespace

import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.checkpoint import Piece, Pieces
from trainer.sharded import pieces, taken

SMALL = st.integers(1, 5)


def cut(whole, dim, rank, world_size):
    """Return a rank's part of a tensor, dressed up as torch's `DTensor`."""
    parts = torch.chunk(whole, world_size, dim)
    empty = whole.narrow(dim, 0, 0)
    tensor = torch.zeros(whole.shape)
    tensor.full_tensor = lambda: whole
    tensor.to_local = lambda: parts[rank] if rank < len(parts) else empty
    tensor.placements = (SimpleNamespace(dim=dim),)
    tensor.device_mesh = SimpleNamespace(size=lambda: world_size, get_local_rank=lambda: rank)
    return tensor


@given(
    rows=st.integers(1, 9), columns=st.integers(1, 9), dim=st.integers(0, 1), w=st.integers(1, 5)
)
def test_the_pieces_of_all_ranks_are_the_whole(rows, columns, dim, w):
    """Also where the ranks do not divide the rows, or are more than there are."""
    whole = torch.randn(rows, columns)
    states = [{"a": [cut(whole, dim, rank, w), 3], "b": whole} for rank in range(w)]
    found = [pieces(state) for state in states]
    assert all(state["b"] is whole for state in found)
    assert all(isinstance(state["a"][0], Piece) for state in found)
    assert torch.equal(Pieces([state["a"][0] for state in found]).whole(), whole)


def test_what_is_taken_shares_no_memory_with_the_file():
    stored = torch.ones(3)
    mine = taken(stored, torch.empty(3))
    mine.zero_()
    assert stored.tolist() == [1, 1, 1]
