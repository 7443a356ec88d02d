import msgspec
import pytest

from shards.errors import DatasetError
from tests.trainer.records import study_record
from trainer.study_compare import change_table, compare_studies

BETTER, NOTHING, WORSE = "arm better", "no difference seen", "arm worse"
FAILED = "INCONCLUSIVE"


def fresh(record, first=11):
    """The same findings from runs of other seeds."""
    arms = {
        name: msgspec.structs.replace(
            arm,
            seeds=[
                msgspec.structs.replace(seed, seed=first + place, bpb=seed.bpb + 0.001)
                for place, seed in enumerate(arm.seeds)
            ],
        )
        for name, arm in record.arms.items()
    }
    study = msgspec.structs.replace(record.study, seeds=[first, first + 1])
    return msgspec.structs.replace(record, arms=arms, study=study)


@pytest.mark.parametrize(
    ("a", "b", "answer"),
    [
        ((-0.1, -0.14, -0.06, BETTER), (-0.08, -0.12, -0.04, BETTER), "confirmed"),
        ((-0.1, -0.14, -0.06, BETTER), (-0.05, -0.11, 0.01, NOTHING), "open"),
        ((-0.1, -0.14, -0.06, BETTER), (0.01, -0.03, 0.05, NOTHING), "contradicted"),
        ((-0.1, -0.14, -0.06, BETTER), (0.1, 0.06, 0.14, WORSE), "contradicted"),
        ((-0.1, -0.14, -0.06, BETTER), (-0.3, -0.34, -0.26, BETTER), "direction only"),
        ((-0.01, -0.05, 0.03, NOTHING), (0.01, -0.03, 0.05, NOTHING), "open"),
        ((-0.035, -0.075, 0.005, NOTHING), (0.035, -0.005, 0.075, NOTHING), "contradicted"),
        ((-0.1, -0.14, -0.06, FAILED), (0.1, 0.06, 0.14, WORSE), "open"),
        ((-0.1, -0.14, -0.06, FAILED), (-0.1, -0.14, -0.06, FAILED), "open"),
    ],
)
def test_an_arm_is_confirmed_open_or_contradicted(a, b, answer):
    change = compare_studies(study_record({"x": a}), fresh(study_record({"x": b})))
    assert change.shared_seeds == []
    found = change.arms["x"]
    assert found.answer == answer
    assert found.change == pytest.approx(b[0] - a[0])
    half = 0.04 * 2**0.5 if b[2] - b[0] < 0.05 else (0.04**2 + 0.06**2) ** 0.5
    assert (found.ci_low, found.ci_high) == pytest.approx(
        (found.change - half, found.change + half)
    )


def test_a_study_does_not_confirm_itself():
    arm = (-0.1, -0.14, -0.06, BETTER)
    a = study_record({"x": arm})
    found = compare_studies(a, a)
    assert found.arms["x"].answer == "same runs"
    assert found.shared_seeds == [1, 2]
    part = fresh(a, first=2)  # one seed in common, but runs of its own, such as another budget
    assert compare_studies(a, part).arms["x"].answer == "confirmed"
    assert compare_studies(a, part).shared_seeds == [2]
    other = msgspec.structs.replace(part, dataset_id="e")
    assert compare_studies(a, other).shared_seeds == []


def test_changing_sides_changes_the_sign():
    a = study_record({"x": (-0.1, -0.15, -0.06, BETTER)})
    b = study_record({"x": (-0.02, -0.05, 0.03, NOTHING)})
    there, back = compare_studies(a, b).arms["x"], compare_studies(b, a).arms["x"]
    assert there.change == -back.change
    assert (there.ci_low, there.ci_high) == pytest.approx((-back.ci_high, -back.ci_low))


def test_what_differs_is_named():
    arm = (-0.1, -0.14, -0.06, BETTER)
    a = study_record({"x": arm, "y": arm})
    b = study_record({"x": arm, "z": arm}, dataset_id="e")
    found = compare_studies(a, b)
    assert (found.only_a, found.only_b) == (["y"], ["z"])
    assert found.differing["dataset_id"] == ("d", "e")
    assert "study.arms" in found.differing
    assert change_table(found).row_count == 1
    assert compare_studies(a, a).differing == {}


def test_studies_without_a_common_arm_cannot_be_compared():
    arm = (-0.1, -0.14, -0.06, BETTER)
    with pytest.raises(DatasetError, match="no arm in common: x and y"):
        compare_studies(study_record({"x": arm}), study_record({"y": arm}))
