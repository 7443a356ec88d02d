import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trainer.study_worth import (
    fit_mixture,
    fit_posterior,
    mean_ranks,
    moments,
    predict,
    quantile,
    run_noise,
    signal_ranks,
    spearman,
    worth_model,
)

CELLS = [("a", 500, 2000), ("b", 300, 1000), ("c", 200, 1000)]
CONTROL = np.array([0.5, 0.25, 0.25])


def study(rng, weights, arms=10, seeds=3, noise=0.003):
    """Arms with random shares, whose bits per byte follow from them."""
    shares = np.concatenate([[CONTROL], rng.dirichlet(4 * CONTROL, arms)])
    bpb = 2 + (shares - CONTROL) @ weights
    seed_effects = 0.05 * rng.standard_normal(seeds)
    return shares, bpb[:, None] + seed_effects + noise * rng.standard_normal((arms + 1, seeds))


def names(shares):
    return [f"arm{i}" for i in range(len(shares))]


def test_planted_worth_is_found_and_covered():
    rng = np.random.default_rng(0)
    weights = np.array([0.1, -0.3, 0.2])
    effects = (weights - CONTROL @ weights) / (1 - CONTROL)
    hits = 0
    for _ in range(20):
        shares, bpb = study(rng, weights)
        worth = worth_model(names(shares), CELLS, shares, bpb)
        for cell, effect in zip(worth.cells, effects, strict=True):
            hits += cell.interval[0] <= effect <= cell.interval[1]
    assert hits >= 53  # of 60; at 95 % fewer have a chance of 1 %
    assert worth.left_out_rank > 0.9
    assert worth.left_out_error < 0.2 * worth.plain_error
    assert worth.cells[1].effect == pytest.approx(effects[1], abs=0.05)


@pytest.mark.parametrize("arms", [3, 4, 6])
@pytest.mark.parametrize("scale", [0.02, 0.2])
def test_intervals_from_few_arms_cover(arms, scale):
    """Small effects in few arms are where the likeliest prior alone covers half of them.

    Forty studies of three cells; at 95 % fewer than 106 of 120 have a chance below 1 %, cells of a
    study being as alike as two in three.
    """
    rng = np.random.default_rng(8)
    hits = 0
    for _ in range(40):
        weights = scale * rng.standard_normal(3)
        effects = (weights - CONTROL @ weights) / (1 - CONTROL)
        shares, bpb = study(rng, weights, arms=arms, seeds=2, noise=0.004)
        bpb[1:] += 0.004 * rng.standard_normal((arms, 1))  # what shares do not explain
        worth = worth_model(names(shares), CELLS, shares, bpb)
        for cell, effect in zip(worth.cells, effects, strict=True):
            hits += cell.interval[0] <= effect <= cell.interval[1]
    assert hits >= 106


@given(st.integers(0, 2**32), st.integers(3, 6), st.permutations(range(3)))
@settings(max_examples=20, deadline=None)
def test_intervals_follow_the_cells_and_the_sign(seed, arms, order):
    rng = np.random.default_rng(seed)
    shares, bpb = study(rng, 0.1 * rng.standard_normal(3), arms=arms)
    first = worth_model(names(shares), CELLS, shares, bpb).cells
    second = worth_model(
        names(shares), [CELLS[i] for i in order], shares[:, order], -bpb
    ).cells  # a difference of the other sign
    for place, i in enumerate(order):
        low, high = first[i].interval
        assert low < first[i].effect < high
        assert second[place].cell == first[i].cell
        assert second[place].effect == pytest.approx(-first[i].effect, abs=1e-6)
        assert second[place].interval == pytest.approx((-high, -low), abs=1e-6)


@given(st.integers(0, 2**32), st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_moments_and_quantiles_are_those_of_draws_from_the_mixture(seed, arms):
    rng = np.random.default_rng(seed)
    x = rng.dirichlet(np.ones(3), arms) - CONTROL
    found = fit_mixture(x, 0.05 * rng.standard_normal(arms), 0.004**2, 2)
    move = np.array([[0.5, -0.5, 0.0]])
    means, spreads = found.along(move)
    picked = rng.choice(len(found.weights), 40_000, p=found.weights)
    draws = means[picked, 0] + spreads[picked, 0] * rng.standard_normal(len(picked))
    low, high = quantile(found, move, 0.025)[0], quantile(found, move, 0.975)[0]
    assert np.mean(draws < low) == pytest.approx(0.025, abs=0.004)
    assert np.mean(draws > high) == pytest.approx(0.025, abs=0.004)
    mean, covariance, _ = moments(found)
    assert found.weights.sum() == pytest.approx(1)
    within = found.weights @ (spreads[:, 0] ** 2 + (means[:, 0] - mean @ move[0]) ** 2)
    assert move[0] @ covariance @ move[0] == pytest.approx(within)


@pytest.mark.parametrize("apart", [0.0, 0.004])
def test_an_arm_is_not_predicted_from_its_double(apart):
    """Two mixtures at right angles say nothing of each other; the double of each would tell all."""
    once = np.array([[0.5, 0.5, 0.0], [0.1, 0.45, 0.45]])
    shares = np.concatenate([[CONTROL], once, once + apart * np.array([1, -1, 0])])
    rng = np.random.default_rng(10)
    bpb = 2 + np.array([[0], [0.06], [0.06], [0.06], [0.06]]) + 1e-4 * rng.standard_normal((5, 3))
    found = worth_model(names(shares), CELLS, shares, bpb)
    assert found.left_out_error > 0.9 * found.plain_error


def test_all_arms_alike_leave_none_to_predict_from():
    shares = np.array([CONTROL, [0.2, 0.5, 0.3], [0.2, 0.5, 0.3]])
    bpb = np.array([[2.0, 2.0], [1.9, 1.9], [1.9, 1.9]])
    found = worth_model(names(shares), CELLS, shares, bpb)
    assert found.left_out_error == pytest.approx(found.plain_error)


def test_arms_like_the_control_leave_the_prior():
    """Nothing was learned of their cells: wide, and around nothing."""
    shares = np.tile(CONTROL, (5, 1))
    _, bpb = study(np.random.default_rng(9), np.zeros(3), arms=4)
    worth = worth_model(names(shares), CELLS, shares, bpb)
    for cell in worth.cells:
        assert cell.effect == pytest.approx(0, abs=1e-9)
        assert cell.interval[0] == pytest.approx(-cell.interval[1], rel=1e-3)
        assert cell.interval[1] > 0.2


def test_where_mixtures_do_nothing_no_cell_is_sure_of_worth():
    rng = np.random.default_rng(1)
    sure = 0
    for _ in range(20):
        shares, bpb = study(rng, np.zeros(3))
        worth = worth_model(names(shares), CELLS, shares, bpb)
        sure += any(not cell.interval[0] <= 0 <= cell.interval[1] for cell in worth.cells)
    assert sure <= 4


def test_a_prediction_says_how_far_the_next_study_may_be_off():
    rng = np.random.default_rng(2)
    weights, noise, seeds, hits = np.array([0.1, -0.3, 0.2]), 0.01**2, 3, 0
    for _ in range(40):
        shares, bpb = study(rng, weights, noise=0.01)
        x, y = shares[1:] - CONTROL, bpb[1:].mean(axis=1) - bpb[0].mean()
        found = fit_posterior(x, y, run_noise(bpb), seeds)
        new = rng.dirichlet(4 * CONTROL, 1) - CONTROL
        mean, spread = predict(new, *found, noise, seeds)
        measured = new @ weights + 0.01 * rng.standard_normal(2) @ [1, -1] / np.sqrt(seeds)
        hits += abs(measured[0] - mean[0]) <= 1.96 * spread[0]
    assert hits >= 34
    assert predict(0 * new, *found, 0.0, np.inf)[0] == 0


def test_the_noise_of_a_run_leaves_out_what_all_arms_share():
    rng = np.random.default_rng(3)
    found = [run_noise(study(rng, np.ones(3), noise=0.01)[1]) for _ in range(50)]
    assert np.mean(found) == pytest.approx(1e-4, rel=0.1)


def test_too_little_to_regress_on_is_no_model():
    shares, bpb = study(np.random.default_rng(4), np.zeros(3), arms=1)
    assert worth_model(names(shares), CELLS, shares, bpb) is None
    assert worth_model(["x"] * 3, CELLS[:1], np.ones((3, 1)), np.ones((3, 2))) is None


def test_ranks_agree_with_scipy():
    rng = np.random.default_rng(5)
    for _ in range(20):
        a, b = rng.integers(0, 6, (2, 12)).astype(float)
        assert mean_ranks(a).tolist() == stats.rankdata(a).tolist()
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert spearman(np.ones(4), np.arange(4.0)) == 0


def test_a_signal_that_tells_worth_comes_first():
    rng = np.random.default_rng(6)
    _, bpb = study(rng, np.array([0.1, -0.3, 0.2]), arms=12)
    found = signal_ranks(
        {"noise": rng.random(13), "same": np.ones(13), "gaps": np.full(13, np.nan),
         "worth": -bpb.mean(axis=1)}, bpb, resamples=400,
    )  # fmt: skip
    assert [rank.signal for rank in found] == ["worth", "noise"]
    assert found[0].rho == pytest.approx(1)
    assert found[0].p_value < 0.01
    assert found[1].p_value > 0.05
    assert signal_ranks({"worth": np.arange(4.0)}, bpb[:4]) == []


def test_signals_that_tell_nothing_are_called_no_more_often_than_their_level():
    rng = np.random.default_rng(7)
    called = 0
    for _ in range(60):
        _, bpb = study(rng, np.array([0.1, -0.3, 0.2]), arms=8)
        means = {f"s{i}": rng.random(9) for i in range(5)}
        called += any(rank.p_value < 0.05 for rank in signal_ranks(means, bpb, resamples=200))
    assert called <= 8
