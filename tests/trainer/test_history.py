import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import TrainConfig
from trainer.history import MIN_WINDOW, WINDOW, Guard, History, Times, rollback_point
from trainer.records import CurvePoint, Metrics


def row(step, loss, valid=None):
    return Metrics(step, 10 * step, loss, 0.1, 1.0, 2.0, 5.0, 0.25, valid)


def test_a_point_holds_the_mean_loss_since_the_last_one():
    history = History()
    for step, loss, valid in ((1, 4.0, None), (2, 2.0, 1.5), (3, 1.0, 1.25), (4, math.nan, 1.0)):
        history.add(row(step, loss, valid))
    points = [
        CurvePoint(2, 20, 3.0, 1.5),
        CurvePoint(3, 30, 1.0, 1.25),
        CurvePoint(4, 40, 0.0, 1.0),
    ]
    assert history.curve == points


def test_times_add_up():
    times = Times()
    for step in (1, 2):
        times.add(row(step, 1.0))
    assert (times.seconds, times.wait_seconds) == (4.0, 1.0)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0, 10), max_size=300), st.integers(0, 300))
def test_a_history_that_went_through_a_checkpoint_goes_on_the_same(losses, cut):
    whole, resumed = History(), History()
    for step, loss in enumerate(losses):
        if step == cut:
            resumed = msgspec.convert(msgspec.to_builtins(resumed), History)
        for history in (whole, resumed):
            history.add(row(step, loss, loss if step % 7 == 0 else None))
            history.guard.take(loss, 2 * loss)
    assert resumed == whole
    assert len(whole.guard.losses) == min(len(losses), WINDOW)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_never_taken(bad):
    assert "loss" in Guard().objection(bad, 1.0, 0.0)
    assert "norm" in Guard().objection(1.0, bad, 0.0)
    assert Guard().objection(1.0, 1.0, 6.0) is None


def test_a_spike_is_far_above_the_window_and_only_with_the_rule():
    guard = Guard()
    for step in range(MIN_WINDOW - 1):
        guard.take(step % 2, 1 + step % 2)  # deviation 0.5
    assert guard.objection(99.0, 99.0, 6.0) is None  # too few steps to say
    guard.take(1.0, 2.0)
    assert guard.objection(0.5 + 2.9, 1.5, 6.0) is None
    assert "loss 3.6 > mean 0.5 + 6 × 0.5" in guard.objection(0.5 + 3.1, 1.5, 6.0)
    assert "norm" in guard.objection(0.5, 1.5 + 3.1, 6.0)
    assert guard.objection(-99.0, 0.0, 6.0) is None  # far below is no spike
    assert guard.objection(99.0, 99.0, 0.0) is None


def test_a_spike_goes_back_to_the_last_multiple_before_it():
    config = TrainConfig(spike="rollback", spike_sigma=6.0, checkpoint_every=20)
    assert [rollback_point(config, step) for step in (19, 20, 39, 40)] == [None, 20, 20, 40]
    assert rollback_point(TrainConfig(checkpoint_every=20), 40) is None
