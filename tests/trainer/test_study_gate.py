import msgspec
import numpy as np
import pytest

from tests.trainer.records import arm_result, run_record
from trainer.records import Baselines
from trainer.study_curves import Need
from trainer.study_gate import anchored_curve, gate_need, gate_sentence, judged_arms


def failed(**changes):
    """A run on the curve 4 − 0.1 ln T, 0.1 above the bigram of what it read."""
    tokens = np.arange(1, 11) * 100_000
    curve = [(int(t), 4 - 0.1 * float(np.log(t))) for t in tokens]
    end = curve[-1][1]
    return run_record(curve=curve, bpb=end, baselines=Baselines(9.0, end - 0.1), **changes)


def test_a_straight_curve_says_how_many_more_tokens():
    run = failed()
    arms = {"x": arm_result([run], baselines_all=run.baselines)}
    need = gate_need(arms, {"x": [run]})
    straight = 1e6 * np.expm1(1)  # 0.1 at 0.1 a factor of e
    assert need.low == pytest.approx(straight, rel=0.01)
    assert need.high > need.low
    assert "raise train.tokens by 1.72M to 2." in gate_sentence(arms, "x", need)
    assert "1 of 1 runs did not beat" in gate_sentence(arms, "x", need)


def test_baselines_that_will_have_read_more_make_it_more():
    run = failed()
    near = gate_need({"x": arm_result([run], baselines_all=run.baselines)}, {"x": [run]})
    better = Baselines(9.0, run.baselines.bigram - 0.02)
    far = gate_need({"x": arm_result([run], baselines_all=better)}, {"x": [run]})
    assert far.low == near.low
    assert far.high > near.high


def test_a_need_out_of_sight_is_unknown():
    run = failed()
    better = Baselines(9.0, run.baselines.bigram - 1)
    arms = {"x": arm_result([run], baselines_all=better)}
    need = gate_need(arms, {"x": [run]})
    assert need.high is None
    assert "train.tokens by at least 1.72M (" in gate_sentence(arms, "x", need)


@pytest.mark.parametrize("settings", [{"schedule": "cosine"}, {"decay": 0.9}])
def test_without_a_curve_before_the_decay_nothing_is_promised(settings):
    run = failed()
    run = msgspec.structs.replace(run, config=msgspec.structs.replace(run.config, **settings))
    arms = {"x": arm_result([run], baselines_all=run.baselines)}
    assert gate_need(arms, {"x": [run]}) == Need(None, None)
    assert "by how much is unknown" in gate_sentence(arms, "x", Need(None, None))


def test_the_run_that_needs_most_decides():
    run, worse = failed(), failed(seed=2)
    worse = msgspec.structs.replace(worse, bpb=run.bpb + 0.05)
    arms = {"x": arm_result([run, worse], baselines_all=run.baselines)}
    alone = gate_need(arms, {"x": [run]})
    both = gate_need(arms, {"x": [run, worse]})
    assert both.low > alone.low
    assert "2 of 2 runs" in gate_sentence(arms, "x", both)


def test_a_passed_gate_is_said():
    run = run_record(bpb=1.0)
    assert gate_sentence({"x": arm_result([run])}, "x", None).startswith("all 1 runs beat")


@pytest.mark.parametrize(
    ("lost", "judged", "words"),
    [
        ([], {"clean", "twice"}, "all 3 runs beat"),
        (["twice"], {"clean"}, "(x-1), so nothing is said of twice, and the other arms are judged"),
        (["clean", "twice"], set(), "so nothing is said of any arm"),
        (["raw"], set(), "those of the control raw among them, so nothing is said of any arm"),
    ],
)
def test_an_arm_fails_alone_and_the_control_with_all(lost, judged, words):
    good, bad = run_record(bpb=1.0), failed()
    arms = {name: arm_result([bad if name in lost else good]) for name in ("raw", "clean", "twice")}
    assert judged_arms(arms, "raw") == judged
    assert words in gate_sentence(arms, "raw", Need(1e5, None) if lost else None)


def test_a_curve_ends_at_the_score_of_all_documents():
    curve = anchored_curve(run_record(bpb=2.5))
    assert curve.tokens.tolist() == [100_000, 200_000, 400_000]
    assert curve.bpb == pytest.approx([2.9, 2.7, 2.5])
