"""Pages that took minutes or gigabytes. No test takes the time: each would take too long to end."""

from importlib import import_module

import pytest

from pipelines.readers.bounds import ATTRIBUTES, DEEPEST, OPTIONS, bounded
from pipelines.readers.html import page_text
from pipelines.readers.http import Page


def text(body):
    return page_text(Page(body.encode(), "text/html", "utf-8"))


def parse(page):
    return import_module("resiliparse.parse.html").HTMLTree.parse(page)


MANY = " ".join(f"a{n}=é" for n in range(300_000))


@pytest.mark.parametrize(
    "page",
    [
        f"<p {MANY}>One</p><p>Two</p>",
        f'<!-- <a x="--><p {MANY}>One</p><p>Two</p>',
        f"<script>a<b='</script><p {MANY}>One</p><p>Two</p>",
        "".join(f"<html a{n}><body b{n}>" for n in range(100_000)) + "<p>One</p><p>Two</p>",
        "<select>" + "<option>x" * 100_000 + "</select><p>One</p><p>Two</p>",
        "<datalist>" + "<OPTION>x</OPTION>" * 100_000 + "</datalist><p>One</p><p>Two</p>",
        "<p>One</p><p>Two</p>" + "".join(f"<p b{n}></p></x{n}>" for n in range(300_000)),
        "<p>One</p><p>Two</p><svg>" + "<g>" * 30_000 + "</x>" * 30_000,
        "<p>One</p><p>Two</p>" + "<span>" * 30_000 + "</h1>" * 30_000,
        "<p>One</p><p>Two</p>" + "<span><!--</span>-->" * 20_000 + "</h1>" * 30_000,
        "<p>One</p><p>Two</p>" + "<span><a x='</span>'></a>" * 20_000 + "<hr>" * 30_000,
        "<p>One</p><p>Two</p><math>" + "<mi></mx>" * 30_000 + "</my>" * 30_000,
        "<p>One</p><p>Two</p>" + "<span>" * 20_000 + "<rt>" * 20_000,
    ],
)
def test_a_page_that_took_hours_keeps_its_text(page):
    assert text(page).split() == ["One", "Two"]


@pytest.mark.parametrize("close", ["</div>", "</div><!--</b></b></b>-->"])
def test_formatting_that_is_opened_again_and_again_does_not_fill_the_memory(close):
    """20,000 elements in each of 30,000."""
    opened = "".join(f"<b a={n}>" for n in range(20_000))
    page = f"<div>{opened}{close}" + "<div>x</div>" * 30_000
    assert text(page).split() == ["x"] * 30_000


def test_names_are_no_reason_to_lose_text():
    page = "".join(f"<x{n}>w{n}</x{n}> " for n in range(60_000))
    assert text(page).split() == [f"w{n}" for n in range(60_000)]


def test_what_pages_have_stays():
    tag = "<p " + " ".join(f"a{n}" for n in range(ATTRIBUTES)) + ">x</p>"
    select = "<select>" + "<option>x" * OPTIONS + "</select>"
    page = tag + select + "<p>a <i>b</i></p>" * 10 + "<p>words of a paragraph</p>" * 900
    assert bounded(page, lambda text: parse_only(text, page))[1]


def parse_only(text, page):
    assert text == page
    return parse(text)


@pytest.mark.parametrize(
    ("depth", "tags", "shallow"),
    [
        (DEEPEST - 50, 0, True),
        (DEEPEST - 50, 3000, False),
        (90, 50_000, True),
        (120, 50_000, False),
    ],
)
def test_the_deeper_a_page_the_fewer_tags_it_may_have(depth, tags, shallow):
    page = "<div>" * depth + "<br>" * tags + "x"
    assert bounded(page, parse)[1] is shallow
