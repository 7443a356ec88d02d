"""Pages so deep that their parse would take the product of depth and tags.

For an end tag that closes nothing, and for tags such as `rt`, `hr`, `table` or `button`, the parser
walks its stack of open elements: 60,000 tags, 210 KB, took 16 s. The depth cannot be asked of a
tree that is not there yet, so it is estimated: of each name, the elements that were opened and not
closed. What is no start tag may be counted as one, and end tags that a comment, a script or a
quoted value could hide are not counted: that makes the estimate too high, not too low.
"""

import re

_TOKEN = re.compile(
    r"<(?P<end>/?)(?P<name>[A-Za-z][^\s/>]*)|<!--|<[!?/]|--!?>|=\s*[\"']|[\"'>]", re.ASCII
)
_TAG = re.compile(r"</?(?P<name>[A-Za-z][^\s/>]*)", re.ASCII)
_RAW = frozenset(
    {"iframe", "noembed", "noframes", "noscript", "plaintext", "script", "style", "textarea"}
    | {"title", "xmp"}
)
"""Elements whose content may be text, up to their own end tag."""
_NEVER_DEEP = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source"}
    | {"track", "wbr"}  # so far they are void; the next one ends
    | {"dd", "dt", "li", "option", "p", "tbody", "td", "tfoot", "th", "thead", "tr"}
)
_DEEP = 100
"""Elements of one name in each other; a name with more goes where a page is too deep."""


def depths(text: str) -> tuple[int, list[str]]:
    """Return the depth that a page may have, and the names that are in it more than `_DEEP` times.

    Args:
        text: the page.
    """
    opened: dict[str, int] = {}
    deep: dict[str, None] = {}
    depth = deepest = 0
    hidden: set[str] = set()  # what would hide an end tag from here on, by what ends it
    for token in _TOKEN.finditer(text):
        name = token["name"]
        if name is None:
            _hide(hidden, token.group())
            continue
        name = name.lower()
        if token["end"]:
            hidden.discard(name)
            if not hidden and opened.get(name):
                opened[name] -= 1
                depth -= 1
            continue
        if name in _RAW:
            hidden.add(name)
        elif name not in _NEVER_DEEP:
            opened[name] = opened.get(name, 0) + 1
            depth += 1
            deepest = max(deepest, depth)
            if opened[name] > _DEEP:
                deep[name] = None
    return deepest, list(deep)


def _hide(hidden: set[str], token: str) -> None:
    """Note what begins, or ends, where an end tag may be hidden."""
    if token == "<!--":
        hidden.add("-->")
    elif token[0] == "<":
        hidden.add(">")
    elif token[0] == "=":
        hidden.add(token[-1])
    else:
        hidden.discard(token[-1])
        if token[0] == "-":
            hidden.discard("-->")


def without(text: str, names: list[str]) -> str:
    """Take elements out of a page whose content stays: their tags become `img`, which has none and
    ends SVG and MathML, where any other name would nest.

    Args:
        text: the page.
        names: the elements' names, in small letters.
    """
    gone = frozenset(names)

    def renamed(token: re.Match[str]) -> str:
        return "<img" if (token["name"] or "").lower() in gone else token.group()

    return _TAG.sub(renamed, text)
