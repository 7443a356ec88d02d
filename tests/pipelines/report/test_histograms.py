import pytest

from pipelines.curate.stats import HISTOGRAMS
from pipelines.report.histograms import histogram


def counts(column, **bins):
    size = len(HISTOGRAMS[column]) - 1
    return {
        role: [bins.get(role, {}).get(number, 0) for number in range(size)]
        for role in ("kept", "dropped")
    }


def test_heights_are_shares_of_the_role_on_one_scale():
    chart = histogram("bytes", counts("bytes", kept={2: 3, 3: 1}, dropped={3: 10}))
    first, second = chart.bars
    assert first.up == pytest.approx(3 * second.up)
    assert (first.down, second.down) == (0, pytest.approx(100 / 1.75))
    assert chart.middle == pytest.approx(first.up)
    assert chart.middle + second.down == pytest.approx(100)
    assert first.title == "64 B to 128 B: 3 kept (75.0%), 0 dropped (0.0%)"


def test_empty_ends_are_cut_off_and_bars_fill_the_width():
    chart = histogram("zstd_bpb", counts("zstd_bpb", kept={8: 1}, dropped={11: 1}))
    assert [bar.x for bar in chart.bars] == [0, 25, 50, 75]
    assert chart.x[0].label == "2"
    assert chart.x[-1].at <= 100


@pytest.mark.parametrize("column", HISTOGRAMS)
def test_nothing_counted_is_no_chart(column):
    assert histogram(column, counts(column)) is None


def test_a_role_without_documents_is_drawn_as_nothing():
    chart = histogram("gopher_words", counts("gopher_words", kept={5: 2}))
    assert [(bar.up, bar.down) for bar in chart.bars] == [(100, 0)]
