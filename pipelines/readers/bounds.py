"""Bounds of the time and memory that a web page may cost.

Lexbor, which parses for resiliparse, and resiliparse itself have costs that grow with the square
of a page or faster. Anybody can write such a page, so each cost is bounded before it arises, by
counts that take linear time and do not depend on what the parser would take for a comment, a script
or a quoted value. (`depth` is an estimate: pages that it is wrong for were looked for, and are not
excluded.) What a page over a bound loses is stated with each; it keeps its text.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.readers.depth import depths, without
from pipelines.readers.tags import count_names, long_tags


def _tags(names: str, *, ends: str = "(/?)") -> re.Pattern[str]:
    """Match the beginnings of tags of some names, four times as fast as `re.IGNORECASE` does."""
    cases = re.sub(r"[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]", names)
    first = "".join(sorted({name[0] + name[0].upper() for name in names.split("|")}))
    return re.compile(rf"<{ends}(?=[{first}])(?:{cases})(?=[\s/>])")


ATTRIBUTES = 2000
"""Attributes of one tag; the rest is left out. Each is compared with all before it: 60,000 of one
tag, 450 KB, took 87 s.
"""
_ROOTS = _tags("html|body", ends="")
_MOST_ROOTS = 4
"""Tags of `html` and `body`, whose attributes gather in one element; more become `wbr`."""

_NAMES = 1 << 14
"""Names of tags and attributes on a page; one with more loses all attributes, and where it is the
tags, all of these. Each is compared with others before it: 64,000, 0.6 MB, took 0.5 s.
"""
_NAMES_FROM = 128 << 10
"""Characters of a page from which on that is looked for."""

OPTIONS = 1000
"""Options of a page; where there are more, all are taken as buttons, whose text is left out, too.
Each looks through its whole `select`: 100,000, 900 KB, took more than 200 s.
"""
_OPTION = _tags("option")

_FORMATTING = "b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u"
"""Elements that are opened again in each block that follows, if they were not closed."""
_ALWAYS_OPENED = 4096
"""So many elements may be opened again in any page, one a character in a larger one; where it
could be more, formatting is taken as `span`. 79 KB of `<p><b a=1><b a=2>` and so on and many `<p>`
took more than 5 GB.
"""
_OPENED = _tags(_FORMATTING, ends="")

DEEPEST = 1000
"""Depth of a page whose main content is looked for; no layout needs more."""
_DEEPEST_ALWAYS = 100
_DEPTH_TAGS = 1_000_000
"""Depth times tags of such a page if it is deeper than `_DEEPEST_ALWAYS`."""

_WALKED = 100_000_000
"""Depth times other tags of a page that is parsed: one with more loses the elements that nest most,
and where that is not enough, all tags (`depth.py`).
"""

INDENTED = 4
"""Bytes of indentation that a byte of a page may become, where that is not less than 64 KiB."""
_INDENTED_ALWAYS = 64 << 10
_DEEPEST_LIST = 32
_INDENT = 2
"""Spaces of each list around a line."""
_LIST = _tags("ul|ol")

_PASSES = 8
_ANY_TAG = re.compile(r"<[^<>]*>")


def bounded(text: str, parse: Callable[[str], Any]) -> tuple[Any, bool]:
    """Return a page, as a tree or text, that is extracted in bounded time and to bounded size.

    Args:
        text: the page, without lone surrogates.
        parse: makes its tree.

    Returns:
        The page and whether its main content can be looked for: that takes the product of depth
        and tags, 15 s for 20,000 nested elements.
    """
    text = _parsable(text)
    flat = _not_deep(text)
    was_deep, text = flat is not text, flat
    tags = text.count("<")
    lines = tags + text.count("\n")  # each of `pre` is indented
    lists = min(
        _DEEPEST_LIST,
        max(INDENTED * len(text), _INDENTED_ALWAYS) // (_INDENT * max(lines, 1)),
    )
    tree = None
    if len(_LIST.findall(text)) > lists:
        tree = parse(text)
        if _has(tree, " ".join([":is(ul,ol)"] * (lists + 1))):
            text, tree = _LIST.sub(r"<\1div", text), None
    deepest = min(DEEPEST, max(_DEEPEST_ALWAYS, _DEPTH_TAGS // max(tags, 1)))
    if tags <= deepest:
        return text if tree is None else tree, not was_deep
    tree = parse(text) if tree is None else tree
    return tree, not was_deep and not _has(tree, ">".join("*" * (deepest + 1)))


def _parsable(text: str) -> str:
    """Return a page that is parsed in linear time."""
    text = _few_names(_few_attributes(text))
    tags = text.count("<")
    if tags > OPTIONS and len(_OPTION.findall(text)) > OPTIONS:
        text = _OPTION.sub(r"<\1button", text)
    if len(_OPENED.findall(text)) * tags > max(len(text), _ALWAYS_OPENED):
        text = _tags(_FORMATTING).sub(r"<\1span", text)
    return text


def _not_deep(text: str) -> str:
    """Return a page in which the parser cannot walk too often over too many open elements."""
    for names_go in (True, False):
        tags = text.count("<")
        if tags * tags // 4 <= _WALKED:  # whatever the depth
            return text
        depth, deep = depths(text)
        depth = min(depth, tags // 2)  # the tags that walk may be open themselves
        if depth * (tags - depth) <= _WALKED:
            return text
        if names_go:
            text = without(text, deep)
    return _without_tags(text)


def _few_attributes(text: str) -> str:
    """Leave out attributes beyond `ATTRIBUTES` of a tag, and those of too many roots."""
    if len(text) <= 4 * ATTRIBUTES:  # fewer than twice as many
        return text
    roots = [root.end() for root in _ROOTS.finditer(text)]
    if len(roots) > _MOST_ROOTS:
        first = roots[_MOST_ROOTS - 1]
        text = text[:first] + _ROOTS.sub("<wbr", text[first:])
    return _without_long_tags(text, ATTRIBUTES)


def _few_names(text: str) -> str:
    """Return a page without attributes, or without tags, if it has too many names."""
    if len(text) <= _NAMES_FROM or _names(text) < _NAMES:
        return text
    text = _without_long_tags(text, 0)
    return text if _names(text) < _NAMES else _without_tags(text)


def _names(text: str) -> int:
    """Count the names of a page, to `_NAMES` at most."""
    return count_names(_bytes(text), np.zeros(2 * _NAMES, np.uint64))


def _bytes(text: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(bytearray(text.encode()), np.uint8)


def _without_long_tags(text: str, most: int) -> str:
    """Leave out what a tag has beyond so many attributes."""
    data = _bytes(text)
    for _ in range(_PASSES):
        cuts = np.empty((len(data) // (most + 1) + 1, 2), np.int64)
        found = long_tags(data, most, cuts)
        if not found:
            return text
        kept = np.ones(len(data), np.bool_)
        for begin, end in cuts[:found].tolist():
            kept[begin:end] = False
        data = data[kept]
        text = data.tobytes().decode()
    return _without_tags(text)  # it was made to be cut for ever


def _without_tags(text: str) -> str:
    """Leave out all tags of a page that is no other's."""
    return _ANY_TAG.sub(" ", text).replace("<", " ")


def _has(tree: Any, selector: str) -> bool:
    """Tell whether a tree has an element that a CSS selector names."""
    return tree.document.query_selector(selector) is not None
