import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import RecipeError
from shards.mixture import plan_mixture
from shards.mixture_config import BLOCK, Stage

SAMPLES = {"books": 5000, "code": 700, "web": 20000}


def deal(mixture, count, seed=1):
    return mixture.assign(np.arange(count, dtype=np.int64), seed)


@given(
    st.lists(st.integers(1, 50), min_size=3, max_size=3),
    st.lists(st.integers(0, 9), min_size=3, max_size=3),
    st.integers(1, 5),
    st.integers(0, 99),
)
def test_every_block_has_its_shares_and_no_sample_is_left_out(first, second, blocks, seed):
    stages = [Stage(0, dict(zip(SAMPLES, first, strict=True)))]
    if any(second):
        stages.append(Stage(blocks * BLOCK, dict(zip(SAMPLES, second, strict=True))))
    sources, samples = deal(plan_mixture(stages, SAMPLES), 9 * BLOCK, seed)
    for source in range(3):
        mine = samples[sources == source]
        assert sorted(mine) == list(range(len(mine)))  # each of its samples once, none skipped
    for block in range(9):
        weights = stages[-1 if block >= blocks else 0].weights
        counts = np.bincount(sources[block * BLOCK : (block + 1) * BLOCK], minlength=3)
        for name, count in zip(SAMPLES, counts, strict=True):
            assert abs(count - BLOCK * weights[name] / sum(weights.values())) <= 2


def test_an_index_means_the_same_wherever_one_starts():
    mixture = plan_mixture(
        [Stage(0, {"web": 3, "code": 1}), Stage(4 * BLOCK, {"books": 1})], SAMPLES
    )
    sources, samples = deal(mixture, 6 * BLOCK)
    at = np.array([5 * BLOCK + 7, 3, 2 * BLOCK], np.int64)
    some = mixture.assign(at, 1)
    np.testing.assert_array_equal(some[0], sources[at])
    np.testing.assert_array_equal(some[1], samples[at])
    assert not np.array_equal(deal(mixture, BLOCK, seed=2)[0], sources[:BLOCK])


def test_sources_are_mixed_inside_a_block():
    sources, _ = deal(plan_mixture([Stage(0, {"web": 1, "code": 1})], SAMPLES), BLOCK)
    runs = np.count_nonzero(np.diff(sources)) + 1
    assert BLOCK / 2 * 0.8 < runs < BLOCK / 2 * 1.2


def test_a_source_leaves_at_its_limit_and_the_others_take_over():
    stages = [Stage(0, {"web": 2, "code": 1, "books": 1})]
    mixture = plan_mixture(stages, SAMPLES, {"code": 2, "books": 1})
    sources, samples = deal(mixture, 60 * BLOCK)
    for number, name in enumerate(mixture.names):
        limit = {"code": 1400, "books": 5000}.get(name, 10**9)
        read = samples[sources == number]
        assert len(read) <= limit
        assert len(read) > limit - BLOCK or name == "web"
    assert (sources[-BLOCK:] == mixture.names.index("web")).all()
    assert mixture.end == 1 << 42


def test_the_mixture_ends_when_all_are_used_up():
    mixture = plan_mixture([Stage(0, {"web": 1, "code": 3})], SAMPLES, {"code": 1, "web": 0.5})
    assert mixture.end % BLOCK == 0
    sources, samples = deal(mixture, mixture.end)
    assert samples[sources == 2].max() < 10000
    assert 10000 + 0 - BLOCK < mixture.end - np.count_nonzero(sources == 1) <= 10000
    empty = plan_mixture([Stage(0, {"code": 1})], SAMPLES, {"code": 0.001})
    assert empty.end == 0


def test_a_limit_beyond_all_runs_is_none():
    stages = [Stage(0, {"web": 3, "code": 1})]
    endless = plan_mixture(stages, SAMPLES)
    assert plan_mixture(stages, SAMPLES, {"web": 1e308, "code": 1e40}).digest == endless.digest


def test_scale_and_order_of_weights_do_not_matter_but_all_else_does():
    def digest(*stages, **limits):
        return plan_mixture(stages, SAMPLES, limits).digest

    plain = digest(Stage(0, {"web": 0.75, "code": 0.25}))
    assert plain == digest(Stage(0, {"code": 1, "web": 3, "books": 0}))
    others = {
        digest(Stage(0, {"web": 0.74, "code": 0.26})),
        digest(Stage(0, {"web": 3, "code": 1}), Stage(BLOCK, {"web": 1})),
        digest(Stage(0, {"web": 3, "code": 1}), code=4),
        digest(Stage(0, {"web": 3, "books": 1})),
    }
    assert len(others | {plain}) == 5


@pytest.mark.parametrize(
    ("stages", "limits", "message"),
    [
        ([], {}, "first stage must start at sample 0"),
        ([Stage(BLOCK, {"web": 1})], {}, "first stage must start at sample 0"),
        ([Stage(0, {"wbe": 1})], {}, "unknown source 'wbe'; did you mean 'web'"),
        ([Stage(0, {"web": -1})], {}, "weight -1 of 'web'"),
        ([Stage(0, {"web": 1, "code": 0.0001})], {}, "at least 1/1024 of the stage's sum"),
        ([Stage(0, {"web": 0})], {}, "no source has a weight above 0"),
        ([Stage(0, {"web": 1}), Stage(1500, {"web": 1})], {}, "such as 1024"),
        ([Stage(0, {"web": 1}), Stage(0, {"web": 1})], {}, "after 0, such as 1024"),
        ([Stage(0, {"web": 1})], {"web": 0}, "max_epochs of 'web' = 0"),
        ([Stage(0, {"web": 1})], {"wbe": 1}, "max_epochs of 'wbe' = 1"),
        ([Stage(0, {"web": 1})], {"web": math.inf}, "'web' = inf: .* leave a source out"),
        ([Stage(0, {"web": 1})], {"web": math.nan}, "max_epochs of 'web' = nan"),
    ],
)
def test_refuses_schedules_that_cannot_be(stages, limits, message):
    with pytest.raises(RecipeError, match=message):
        plan_mixture(stages, SAMPLES, limits)
