from hypothesis import given
from hypothesis import strategies as st

from pipelines.report.diff import LEAD, WINDOW, side_by_side

TEXTS = st.text(alphabet="ab .\n", max_size=80).map(lambda text: text * 40)


def joined(segments):
    return "".join(segment.text for segment in segments)


@given(TEXTS, TEXTS)
def test_segments_are_a_window_of_each_text_and_what_is_not_shown_is_counted(left, right):
    sides = side_by_side(left, right)
    for text, shown, after in (
        (left, sides.left, sides.left_after),
        (right, sides.right, sides.right_after),
    ):
        window = joined(shown)
        assert len(window) <= WINDOW
        assert text[sides.before : sides.before + len(window)] == window
        assert sides.before + len(window) + after == len(text)


def test_only_words_that_differ_are_marked_and_white_space_is_not_compared():
    sides = side_by_side("the same  old word\n", "the same\nnew word\n")
    assert [s.text for s in sides.left if s.changed] == ["old"]
    assert [s.text for s in sides.right if s.changed] == ["new"]


def test_window_begins_shortly_before_the_first_difference():
    start = "equal words " * 500
    sides = side_by_side(f"{start}left end", f"{start}right end")
    assert len(start) - LEAD <= sides.before < len(start) - LEAD + 40
    assert [s.text for s in sides.left if s.changed] == ["left"]


def test_a_difference_does_not_mark_what_the_other_window_just_does_not_reach():
    shared = "".join(f"line {number} that both texts have\n" for number in range(100))
    sides = side_by_side(f"one more word in front\n{shared}", shared)
    assert [s for s in sides.right if s.changed] == []


def test_equal_texts_have_no_marks():
    sides = side_by_side("same text", "same text")
    assert not any(s.changed for s in [*sides.left, *sides.right])
    assert sides.before == 0
