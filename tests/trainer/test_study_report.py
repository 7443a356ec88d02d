import msgspec

from tests.trainer.records import arm_result, run_record, study_record
from trainer.records import StudyRecord
from trainer.study_report import answer_sentence, forest, study_markdown, worth_words

ARMS = {
    "curated": (-0.05, -0.08, -0.02, "arm better"),
    "random-curated": (0.01, -0.03, 0.05, "no difference seen"),
    "noise": (0.04, 0.01, 0.07, "arm worse"),
}


def test_the_sentence_has_a_part_for_each_arm():
    record = study_record(ARMS)
    sentence = answer_sentence(record.arms, record.study)
    assert sentence == (
        "With 2 seeds, curated is better than raw: −0.0500 bits per byte (97.5 % interval −0.0800"
        " to −0.0200), 2.3 % fewer bits; no difference seen between random-curated and raw: +0.0100"
        " bits per byte (97.5 % interval −0.0300 to +0.0500); noise is worse than raw: +0.0400 bits"
        " per byte (97.5 % interval +0.0100 to +0.0700), 1.8 % more bits."
    )


def test_the_difference_from_a_random_subset_is_said():
    record = study_record(ARMS)
    arm = msgspec.structs.replace(
        record.arms["curated"], random_delta=-0.03, random_ci=(-0.06, -0.01)
    )
    record = msgspec.structs.replace(record, arms=record.arms | {"curated": arm})
    assert "to −0.0200) and −0.0300 (−0.0600 to −0.0100) from its random subset, 2.3 %" in (
        answer_sentence(record.arms, record.study)
    )
    assert "| −0.0300 (−0.0600 to −0.0100) |" in study_markdown(record)


def test_what_failed_the_gate_is_said_to_be_inconclusive():
    record = study_record(ARMS | {"noise": (0.04, 0.01, 0.07, "INCONCLUSIVE")})
    assert answer_sentence(record.arms, record.study).endswith(
        "; INCONCLUSIVE: noise (does not beat the unigram and bigram models of the same samples in"
        " every run)."
    )
    arm = msgspec.structs.replace(
        record.arms["curated"], random_delta=-0.03, random_ci=(-0.06, -0.01)
    )
    random = msgspec.structs.replace(record.arms["random-curated"], beats_baselines=False)
    arms = record.arms | {"curated": arm, "random-curated": random}
    record = msgspec.structs.replace(record, arms=arms)
    assert "from its random subset (INCONCLUSIVE: that does not" in (
        answer_sentence(record.arms, record.study)
    )
    assert "| −0.0300 (−0.0600 to −0.0100), INCONCLUSIVE |" in study_markdown(record)


def test_the_plot_has_a_row_for_each_arm_and_a_line_at_zero():
    lines = forest(study_record(ARMS)).splitlines()
    assert len(lines) == 4
    zero = lines[0].index("│")
    assert [line.find("●") < zero for line in lines[:3]] == [True, False, False]
    for line, (_, low, high, _) in zip(lines, ARMS.values(), strict=False):
        start, end = line.index("├"), line.index("┤")
        assert start < line.index("●") < end
        assert (start <= zero <= end) == (low <= 0 <= high)
    assert lines[3].split() == ["−0.080", "better", "worse", "+0.070"]


def test_intervals_that_end_at_zero_or_are_points_can_be_drawn():
    for arm in ((0.0, 0.0, 0.0, "no difference seen"), (-0.1, -0.1, -0.1, "arm better")):
        assert "●" in forest(study_record({"x": arm}))


def test_the_page_shows_every_number_that_the_record_holds():
    record = study_record(ARMS)
    page = study_markdown(record)
    assert page == study_markdown(
        msgspec.json.decode(msgspec.json.encode(record), type=StudyRecord)
    )
    for words in (
        "| curated | 2.2000 | −0.0500 | −0.0800 to −0.0200 | 97.5 % | 0.0100 | arm better |"
        "  | ×1.25 (1.10 to 1.40) | 320k | 2.4000 |",
        "none is needed: no arm is smaller than the control",
        "a difference of 0.0200 bits per byte",
        "zstd, each document on its own: 2.9000.",
        "Gate: all runs beat the models.",
    ):
        assert words in page
    assert all(line.startswith("| ") for line in page.splitlines() if "|" in line)


def test_a_bar_in_a_selection_does_not_break_the_table():
    run = msgspec.structs.replace(run_record(), select="a == '|'")
    record = study_record(ARMS)
    page = study_markdown(
        msgspec.structs.replace(record, arms=record.arms | {"x": arm_result([run])})
    )
    assert r"`a == '\|'`" in page


def test_an_unknown_worth_is_said():
    assert worth_words(arm_result([run_record()])) == "unknown"
    arm = study_record(ARMS).arms["noise"]
    assert worth_words(arm) == "×1.25 (1.10 to 1.40)"
    beyond = msgspec.structs.replace(
        arm, effective_data_multiplier=None, multiplier_ci=(4.0, None), multiplier_reach=6.1,
        multiplier_beyond=">",
    )  # fmt: skip
    assert worth_words(beyond) == "> ×6.10 (4.00 to > 6.10)"
