import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import RecipeError
from shards.hashing import BLOCK_BYTES
from shards.window import plan_window


@given(st.integers(1 << 25, 1 << 40), st.integers(2, 1 << 16))
def test_two_windows_fit_into_the_cache(max_bytes, sample_bytes):
    window = plan_window(max_bytes, sample_bytes)
    blocks = -(-window.chunk * sample_bytes // BLOCK_BYTES) + 1
    assert 2 * window.chunks * blocks * BLOCK_BYTES <= max_bytes
    assert window.chunks >= 8


def test_large_caches_read_little_twice():
    window = plan_window(1 << 30, 2048)
    assert window.chunk * 2048 == 8 * BLOCK_BYTES
    assert window.chunks == 512 // 9


def test_says_how_large_the_cache_must_be():
    with pytest.raises(RecipeError, match="it needs at least 16,777,216"):
        plan_window((1 << 25) - 1, 2048)
