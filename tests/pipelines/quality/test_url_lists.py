import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.quality import SignalsConfig, check_signals, definitions, known_signals, url_lists
from shards.errors import InputError, RecipeError

ENTRIES = """\
\ufeff# UT1, adult
Example.org
*.wild.net
.dot.net
10.0.0.7

www.pages.com/Forum/
pages.com/a.php?id=3
http://deep.org/x/y/z
bücher.de
"""


@pytest.fixture
def lists(tmp_path):
    for name, text in (("sites", ENTRIES), ("urls", "one.org/p\n"), ("games", "play.org\n")):
        (tmp_path / name).write_text(text, "utf-8")
    return {
        "bad": [str(tmp_path / "sites"), str(tmp_path / "urls")],
        "games": [str(tmp_path / "games")],
    }


@pytest.mark.parametrize(
    ("url", "listed"),
    [
        ("http://example.org", 1),
        ("HTTPS://user:pw@A.b.EXAMPLE.org.:8080/x?y#z", 1),
        ("example.org/no/scheme", 1),
        ("//example.org", 1),
        ("http://notexample.org/", 0),
        ("http://example.org.evil.com/", 0),
        ("http://evil.com/example.org", 0),
        ("http://example.com/?u=http://example.org/", 0),
        ("http://a.wild.net/", 1),
        ("http://dot.net/", 1),
        ("http://10.0.0.7/", 1),
        ("http://0.0.7/", 0),
        ("http://pages.com/", 0),
        ("http://pages.com/forum", 1),
        ("http://www2.pages.com/forum/thread/1", 1),
        ("http://pages.com/forum?x=1", 1),
        ("http://pages.com/forums", 0),
        ("http://blog.pages.com/forum", 0),  # a path is of one host
        ("http://pages.com/a.php?id=3&b=4", 1),
        ("http://pages.com/a.php?id=33", 0),
        ("http://deep.org/x/y", 0),
        ("http://deep.org/x/y/z/../w", 1),
        ("http://deep.org/q/x/y/z", 0),
        ("http://one.org/p", 1),
        ("https://BÜCHER.de/", 1),  # IDNA's own lower case
        ("https://xn--bcher-kva.de/", 1),
        ("", 0),
        ("://", 0),
        ("http://" + "a." * 200 + "example.org/", 0),
        (None, 0),
    ],
)
def test_an_address_is_listed_by_hand(lists, url, listed):
    columns = url_lists.compute(lists, [url, "http://play.org"])
    assert columns["url_bad"].tolist() == [listed, 0]
    assert columns["url_games"].tolist() == [0, 1]
    assert columns["url_bad"].dtype == np.int64


LABEL = st.sampled_from(["a", "b", "www", "org"])
HOST = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
PATH = st.lists(st.sampled_from(["/a", "/b", "?a", "&b", "c"]), max_size=4).map("".join)


@given(st.lists(st.tuples(HOST, PATH), min_size=1, max_size=4), HOST, PATH)
def test_an_address_is_listed_where_a_plain_loop_says_so(entries, host, path):
    def site(name):
        return name[4:] if name.startswith("www.") else name

    def holds(entry_host, entry_path):
        entry_path = entry_path.rstrip("/")
        if not entry_path.startswith(("/", "?")):  # it belongs to the host
            head = min([*(entry_path.find(c) for c in "/?" if c in entry_path), len(entry_path)])
            entry_host, entry_path = entry_host + entry_path[:head], entry_path[head:]
        if not entry_path:
            return f".{own_host}".endswith(f".{entry_host}")
        if site(own_host) != site(entry_host) or not own_path.startswith(entry_path):
            return False
        return own_path == entry_path or own_path[len(entry_path)] in "/?&;"

    cut = min([*(path.find(c) for c in "/?" if c in path), len(path)])
    own_host, own_path = host + path[:cut], path[cut:]
    hashes = {}
    for entry_host, entry_path in entries:
        entry, rest = url_lists.split(entry_host + entry_path)
        hashes[site(entry) + rest if rest else entry] = True
    found = any(one in hashes for one in url_lists.candidates(host + path, 9))
    assert found == any(holds(*entry) for entry in entries)


def test_the_definition_has_what_is_in_the_files_and_not_where_they_lie(lists, tmp_path):
    (own,) = [value for name, value in definitions(_config(lists)).items() if "bad" in name]
    moved = tmp_path / "moved"
    moved.write_text("one.org/p\n")
    for paths, same in (
        ([str(moved), lists["bad"][0]], True),
        ([lists["games"][0], lists["bad"][0]], False),
    ):
        changed = {"bad": paths}
        assert (definitions(_config(changed))["url_list bad"] == own) is same
    assert list(known_signals(_config(lists)))[-2:] == ["url_bad", "url_games"]


def _config(lists):
    return SignalsConfig(url_lists=lists)


def test_lists_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="becomes a column"):
        check_signals(_config({"bad sites": ["x"]}))
    with pytest.raises(InputError, match=r"url_lists\.bad: name at least one file"):
        definitions(_config({"bad": []}))
    with pytest.raises(InputError, match=r"no such file \(signals\.url_lists\.bad"):
        definitions(_config({"bad": [str(tmp_path / "none")]}))
    for content, message in (
        (b"# none\n\n", "without an entry"),
        (b"a\n\xff\n", "line 2 is not"),
        (gzip.compress(b"a.org\n"), "is compressed; unpack it"),
    ):
        path = tmp_path / message[:6]
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"{message}.*signals\.url_lists\.bad"):
            url_lists.compute({"bad": [str(path)]}, ["http://a.org"])


def test_a_pattern_stands_for_all_its_files(lists, tmp_path):
    whole, pattern = ({"bad": paths} for paths in (lists["bad"], [str(tmp_path / "[su]*s")]))
    urls = ["http://example.org", "http://one.org/p", "http://play.org"]
    for named in (whole, pattern):
        assert url_lists.compute(named, urls)["url_bad"].tolist() == [1, 1, 0]
    assert definitions(_config(whole)) == definitions(_config(pattern))


def test_a_list_that_was_rewritten_is_read_anew(tmp_path):
    path = tmp_path / "list"
    for site in ("one.org", "other.org"):
        path.write_text(f"{site}\n")
        found = url_lists.compute({"a": [str(path)]}, ["http://one.org/", "http://other.org/"])
        assert found["url_a"].tolist() == [site == "one.org", site == "other.org"]
