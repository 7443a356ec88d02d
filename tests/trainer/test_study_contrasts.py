import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from tests.trainer.records import study_record
from trainer.records import STUDY, StudyRecord, read_record, write_record
from trainer.stats import paired_differences
from trainer.study_cli import show_command
from trainer.study_config import StudyConfig
from trainer.study_contrasts import compare_contrasts, contrast_words
from trainer.study_report import answer_sentence, study_markdown

ARMS = ["raw", "a", "b", "c"]
PAIRS = [("b", "a"), ("c", "a"), ("c", "b")]
STUDY_CONFIG = StudyConfig(
    arms=dict.fromkeys(ARMS, "True"), seeds=[1, 2, 3, 4], contrasts=PAIRS, bootstrap_samples=300
)
SIZES = np.full(40, 1000)


def scores(rng, **shifts):
    """Bits of 40 documents under four seeds; `shifts` in bits per byte, noise of 0.01."""
    document = rng.normal(2000, 300, 40)
    return {
        name: document + 1000 * (shifts.get(name, 0.0) + rng.normal(0, 0.01, (4, 40)))
        for name in ARMS
    }


def test_a_planted_difference_between_two_arms_is_called_and_no_other():
    bits = scores(np.random.default_rng(1), a=-0.1, b=-0.1, c=-0.05)
    found = compare_contrasts(STUDY_CONFIG, bits, SIZES, {"a", "b", "c"})
    assert [(one.arm, one.against) for one in found] == PAIRS
    assert [one.verdict for one in found] == ["no difference seen", "arm worse", "arm worse"]
    assert [one.delta for one in found] == pytest.approx([0, 0.05, 0.05], abs=0.01)
    for one in found:
        assert one.ci_low < one.delta < one.ci_high
        assert 0.05 / 3 - 1e-12 <= one.level <= 0.05


def test_contrasts_are_a_family_of_their_own():
    """One contrast with `a` is what a study with the control `a` and one arm would say."""
    bits = scores(np.random.default_rng(2), b=0.02)
    study = msgspec.structs.replace(STUDY_CONFIG, contrasts=[("b", "a")])
    (found,) = compare_contrasts(study, bits, SIZES, set(ARMS))
    alone = paired_differences({"b": bits["b"]}, bits["a"], SIZES, 0.05, 300)["b"]
    assert found.delta == pytest.approx(alone.delta)
    assert (found.ci_low, found.ci_high) == pytest.approx(alone.both)
    assert (found.level, found.p_value) == pytest.approx((alone.level, alone.p_value))


def test_nulls_are_called_no_more_often_than_their_level():
    rng, calls = np.random.default_rng(3), 0
    for _ in range(200):
        found = compare_contrasts(STUDY_CONFIG, scores(rng), SIZES, set(ARMS))
        calls += any(one.verdict != "no difference seen" for one in found)
    assert calls <= 16  # of 200 at 0.05: more than 16 has a chance of 2 % at the level itself


def test_an_arm_that_failed_the_gate_has_no_contrast():
    bits = scores(np.random.default_rng(4), c=1.0)
    found = compare_contrasts(STUDY_CONFIG, bits, SIZES, {"a", "b"})
    verdicts = [one.verdict for one in found]
    assert verdicts == ["no difference seen", "INCONCLUSIVE", "INCONCLUSIVE"]
    assert contrast_words(found[1]).startswith("INCONCLUSIVE: c and a")
    found = compare_contrasts(STUDY_CONFIG, bits, SIZES, set())  # the control failed
    assert {one.verdict for one in found} == {"INCONCLUSIVE"}


def test_contrasts_are_shown_in_sentence_page_table_and_json(tmp_path):
    bits = scores(np.random.default_rng(1), a=-0.1, b=-0.1, c=-0.05)
    found = compare_contrasts(STUDY_CONFIG, bits, SIZES, {"a", "b", "c"})
    record = study_record(dict.fromkeys("abc", (-0.1, -0.2, -0.05, "arm better")), contrasts=found)
    write_record(tmp_path / STUDY, record)
    assert read_record(tmp_path / STUDY, StudyRecord) == record
    sentence = answer_sentence(record.arms, record.study, found)
    assert "; no difference seen between b and a: " in sentence
    assert "; c is worse than b: +0.0" in sentence
    page = study_markdown(record)
    assert "## Planned contrasts" in page
    assert "| c − b | +0.0" in page

    def shown(*options):
        return CliRunner().invoke(show_command, [str(tmp_path), *options], catch_exceptions=False)

    plain = msgspec.json.decode(shown("--json").stdout)["contrasts"]
    assert plain[2]["verdict"] == "arm worse"
    assert "c − b" in shown().output
    assert "## Planned contrasts" not in study_markdown(
        msgspec.structs.replace(record, contrasts=[])
    )
