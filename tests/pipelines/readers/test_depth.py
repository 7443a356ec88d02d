import pytest

from pipelines.readers.depth import depths, without


@pytest.mark.parametrize(
    ("page", "depth"),
    [
        ("<div><p>a</p><p>b<br></div><DIV></div >", 1),
        ("<div>" * 9 + "</div>" * 9 + "<b><i>", 9),
        ("<span></x>" * 9, 9),
        ("</span>" * 9 + "<span>" * 9, 9),
        ("<span><!-- </span> -->" * 9, 9),
        ("<span><? </span><? x>" * 9, 9),
        ("<span><a x='></span>'></a>" * 9, 10),
        ('<span><a x = "></span>"></a>' * 9, 10),
        ("<span><script></span></script>" * 9, 9),
        ('<div title="a">\'</div>' * 9, 1),
    ],
)
def test_what_may_be_open_is_counted_and_nothing_hides_it(page, depth):
    assert depths(page)[0] == depth


def test_elements_that_nest_too_much_go_and_their_content_stays():
    page = "<p>" + "<i>" * 101 + "x" + "</I>" * 101 + "<ix>y</ix>" + "<u>" * 100
    assert depths(page) == (101, ["i"])
    assert without(page, ["i"]) == (
        "<p>" + "<img>" * 101 + "x" + "<img>" * 101 + "<ix>y</ix>" + "<u>" * 100
    )
