import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.study_repeats import ONE_SIZE, Points, effective_tokens, fit_law, fit_repeats

BUDGET = 1e6


def points(constant, noise, rng, repeats=(1, 2, 4, 8)):
    """Curves of a law with floor 1.5, exponent 0.3 and a gain of 0.05 by the decay."""
    parts = []
    for times in repeats:
        tokens = BUDGET * np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0])
        unique = np.full(len(tokens), BUDGET / times)
        decayed = tokens == BUDGET
        bpb = 1.5 + 40 * effective_tokens(tokens, unique, constant) ** -0.3 - 0.05 * decayed
        parts.append((tokens, unique, bpb + noise * rng.standard_normal(len(bpb)), decayed))
    return Points(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@given(st.floats(0.1, 100), st.floats(1, 50))
def test_effective_tokens_are_those_read_until_data_is_repeated_and_never_more(constant, epochs):
    tokens = np.array([0.5, 1.0, epochs]) * 1000
    found = effective_tokens(tokens, np.full(3, 1000.0), constant)
    assert found[:2].tolist() == [500, 1000]
    assert 1000 <= found[2] <= min(tokens[2], 1000 * (1 + constant)) + 1e-6
    assert effective_tokens(tokens, np.full(3, 1000.0), 2 * constant)[2] >= found[2]


@pytest.mark.parametrize("constant", [1.0, 5.0, 15.4])
def test_a_planted_law_is_found(constant):
    law = fit_law(points(constant, 0.0, np.random.default_rng(0)))
    assert law.constant == pytest.approx(constant, rel=0.15)
    assert law.gain == pytest.approx(0.05, abs=0.01)
    assert law.error < 2e-3


def test_the_interval_covers_what_was_planted():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(20):
        fit = fit_repeats([points(4.0, 0.002, rng) for _ in range(3)], ["raw"])
        covered += fit.r_d_interval[0] <= 4.0 <= fit.r_d_interval[1]
    assert covered >= 17  # 95 % of 20 are 19; 16 or fewer have a chance of 0.3 %
    assert fit.reason == ONE_SIZE
    assert fit.r_n_star is None


def test_what_the_curves_do_not_say_is_not_said():
    rng = np.random.default_rng(2)
    never = fit_repeats([points(1e9, 1e-4, rng, repeats=(1,)) for _ in range(2)], ["raw"])
    assert never.r_d_star is None
    assert "do not determine it" in never.reason
    few = points(4.0, 0.0, rng, repeats=(1,))
    assert fit_law(Points(*(column[:5] for column in few))) is None
    rising = few._replace(bpb=few.tokens)
    assert fit_law(rising) is None
    assert "do not fall" in fit_repeats([rising, rising], ["raw"]).reason
