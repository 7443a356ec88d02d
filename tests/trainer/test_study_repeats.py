from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.records import run_record
from trainer.config import TrainConfig
from trainer.study_config import StudyConfig
from trainer.study_extras import repeat_fit
from trainer.study_repeats import ONE_SIZE, Points, effective_tokens, fit_law, fit_repeats
from trainer.study_sections import repeat_words

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


def run_of(times, seed, bpb):
    tokens = (np.arange(1, 9) * BUDGET / 8).astype(int)
    own = bpb + 40 * effective_tokens(tokens, np.full(8, BUDGET / times), 4.0) ** -0.3
    own[-1] -= 0.05
    made = run_record(seed=seed, curve=list(zip(tokens.tolist(), own.tolist(), strict=True)))
    return msgspec.structs.replace(made, config=TrainConfig(decay=0.2))


@pytest.mark.parametrize(
    ("failed", "left", "said"),
    [
        ([], [], None),
        (["repeat-8", "other"], ["repeat-8"], None),
        (["repeat-2", "repeat-4", "repeat-8"], None, "every repeat arm did not pass"),
        (["raw"], ["raw"], "the repeated arm raw did not pass the gate: raise train.tokens"),
    ],
)
def test_repeat_arms_that_failed_the_gate_are_left_out_and_named(failed, left, said):
    repeats = [2, 4, 8]
    study = StudyConfig(repeats=repeats, seeds=[1, 2])
    times = {"raw": 1} | {f"repeat-{n}": n for n in repeats}
    rng = np.random.default_rng(3)
    records = {
        name: [run_of(n, seed, 1.5 + 1e-4 * rng.standard_normal(8)) for seed in (1, 2)]
        for name, n in times.items()
    }
    one = {name: SimpleNamespace(tokens=BUDGET / n) for name, n in times.items()}
    fit = repeat_fit(dict.fromkeys((1, 2), one), records, study, failed)
    assert fit.left_out == (failed if left is None else left)
    if said is None:
        assert fit.arms == [name for name in times if name not in failed]
        assert fit.r_d_star == pytest.approx(4, rel=0.5)
    else:
        assert said in fit.reason
        assert fit.r_d_star is None
    named = f"did not pass the gate: {', '.join(fit.left_out)}."
    assert repeat_words(fit).endswith(named) is bool(fit.left_out)
