"""Strict TOML: recipes and studies decode into typed structs, with errors that say where.

A recipe is one TOML file whose tables belong to different parts of Assay (`[dedup]`, `[train]`…).
Each part declares its own `msgspec.Struct` and decodes its own table; unknown keys anywhere are
errors with a suggestion, because a misspelt threshold that is silently ignored costs a dataset.
"""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import msgspec.inspect

from shards.errors import RecipeError

S = TypeVar("S", bound=msgspec.Struct)
Table = dict[str, Any]

SECTIONS = (
    "name",
    "input",
    "signals",
    "filters",
    "dedup",
    "split",
    "output",
    "tokenizer",
    "tokenize",
    "train",
    "study",
)
"""Top-level keys of a recipe, in the order in which the chain uses them."""

_DEEPEST = 32
"""Most tables and lists inside each other; some thousands would end Python's stack."""


def load_recipe(path: str | Path, overrides: tuple[str, ...] = ()) -> Table:
    """Read a recipe and apply `--set` overrides.

    Args:
        path: the TOML file.
        overrides: assignments `a.b=value`; the value is TOML (`3`, `["x"]`, `true`) or, where it
            is not valid TOML, a bare string.

    Raises:
        RecipeError: no file that can be read, broken TOML, unknown top-level key, a name that is
            not a string, malformed override.
    """
    file = Path(path)
    table = _read_toml(file)
    for override in overrides:
        _assign(table, override)
    _check_integers(table, str(file))
    for key in table:
        if key not in SECTIONS:
            raise RecipeError(f"{file}: unknown key {key!r}{did_you_mean(key, SECTIONS)}")
    name = table.get("name", "")
    if not isinstance(name, str):
        raise RecipeError(
            f'{file}: name = {name!r}: expected a string, got {_kind(name)}; write name = "…"'
        )
    return table


def _read_toml(file: Path) -> Table:
    try:
        text = file.read_text(encoding="utf-8")
        if text.startswith("\ufeff"):
            raise RecipeError(
                f"{file}: begins with a byte order mark (BOM), which TOML does not allow; save it"
                " as UTF-8 without BOM"
            )
        table = tomllib.loads(text)
    except FileNotFoundError:
        raise RecipeError(f"{file}: no such recipe file") from None
    except IsADirectoryError:
        raise RecipeError(f"{file}: is a directory, not a recipe file") from None
    except OSError as error:  # a file where a folder should be, no permission, a name too long
        raise RecipeError(f"{file}: cannot be read as a recipe: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file}: not UTF-8 text ({error.reason})") from None
    except ValueError as error:  # also of a number with thousands of digits
        raise RecipeError(f"{file}: not valid TOML: {error}") from None
    except RecursionError:
        raise _too_deep(str(file)) from None
    if _is_deep(table):
        raise _too_deep(str(file))
    return table


def _is_deep(value: Any) -> bool:
    """Tell whether tables and lists nest deeper than `_DEEPEST`, without recursion."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
    return bool(level)


def _check_integers(value: Any, where: str, *keys: str) -> None:
    """Refuse what Python's parser reads though TOML does not know it: integers beyond 64 bits."""
    if isinstance(value, dict):
        for key, child in value.items():
            _check_integers(child, where, *keys, key)
    elif isinstance(value, list):
        for child in value:
            _check_integers(child, where, *keys)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise RecipeError(
            f"{where}: {'.'.join(keys)} is an integer beyond 64 bits, which TOML does not have"
        )


def _too_deep(where: str) -> RecipeError:
    return RecipeError(f"{where}: tables or lists are nested more than {_DEEPEST - 1} deep")


def _kind(value: Any) -> str:
    """Name the TOML type of a value."""
    if isinstance(value, bool):
        return "a boolean"
    kinds = {
        int: "an integer",
        float: "a float",
        str: "a string",
        list: "an array",
        dict: "a table",
    }
    return kinds.get(type(value), "a date or time")


def decode(table: Table, section: str, type_: type[S]) -> S:
    """Decode `table[section]` (a dotted path, absent means empty) into the struct `type_`.

    Raises:
        RecipeError: unknown key, wrong type or value out of range, with the key's full path.
    """
    value: Any = table
    for key in section.split("."):
        value = value.get(key, {}) if isinstance(value, dict) else value
    try:
        return msgspec.convert(value, type_, strict=True)
    except msgspec.ValidationError as error:
        raise RecipeError(_explain(str(error), section, value, type_)) from None


def _assign(table: Table, override: str) -> None:
    """Apply one `a.b=value` override to a nested table, in place."""
    path, equals, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise RecipeError(
            f"--set {override!r}: expected key.path=value, e.g. dedup.near.keep=longest"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        value = text
    except RecursionError:
        raise _too_deep(f"--set {path}=…") from None
    if len(keys) > _DEEPEST // 2 or _is_deep([value]):
        raise _too_deep(f"--set {path[:80]}=…")
    node = table
    for key in keys[:-1]:
        child = node.setdefault(key, {})
        if not isinstance(child, dict):
            raise RecipeError(f"--set {override!r}: {key!r} is a value, not a table")
        node = child
    node[keys[-1]] = value


def did_you_mean(key: str, known: tuple[str, ...], plural: str = "keys") -> str:
    """Return the end of an error message about an unknown name: the nearest one, or all."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known {plural}: {', '.join(known)}"


_TOML = {"object": "table", "array": "list", "str": "string", "int": "integer", "bool": "boolean"}
"""What TOML calls what msgspec names in JSON's words or Python's."""


def _explain(message: str, section: str, value: Any, type_: type) -> str:
    """Rewrite a msgspec message with the recipe's own key path, the value and a suggestion."""
    at = re.search(r" - at `\$(.*)`$", message)
    inner = at.group(1) if at else ""
    text = message[: at.start()] if at else message
    steps = re.findall(r"\w+|\.\.\.", inner)
    if "..." in steps:
        steps = _name_steps(value, type_, steps, message)
        inner = "".join(f"[{step}]" if step.isdigit() else f".{step}" for step in steps)
    unknown = re.search(r"unknown field `(.+)`", text)
    if unknown:
        key = unknown.group(1)
        return f"unknown key {section}{inner}.{key}{did_you_mean(key, _known_keys(type_, steps))}"
    text = re.sub(r"`(\w+)`", lambda kind: f"a {_TOML.get(kind[1], kind[1])}", text)
    text = f"{text[0].lower()}{text[1:]}".replace("a integer", "an integer")
    node = _type_at(type_, steps)
    if isinstance(node, msgspec.inspect.LiteralType):
        text = f"expected one of {', '.join(repr(choice) for choice in node.values)}"
    elif isinstance(node, msgspec.inspect.StrType) and node.pattern and "regex" in text:
        text = f"expected one of {', '.join(_choices(node.pattern))}"
    for step in steps:
        value = value[int(step)] if isinstance(value, list) else value.get(step)
    if isinstance(value, dict):  # what two of its keys say does not go together
        return f"{section}{inner}: {text}"
    return f"{section}{inner} = {value!r}: {text}"


def _name_steps(value: Any, type_: type, steps: list[str], message: str) -> list[str]:
    """Return `steps` with the key for each "...", which msgspec writes for that of a free table:
    the first with which alone the error is the same.
    """
    named: list[str] = []
    for step in steps:
        table = value
        for key in named:
            table = table[int(key)] if isinstance(table, list) else table[key]
        fails = (key for key in table if _fails(_only(value, [*named, key]), type_, message))
        named.append(next(fails) if step == "..." else step)
    return named


def _only(value: Any, keys: list[str]) -> Any:
    """Return a copy in which the table that holds the last of `keys` holds nothing else."""
    key, *rest = keys
    if isinstance(value, list):
        return [*value[: int(key)], _only(value[int(key)], rest), *value[int(key) + 1 :]]
    return {**value, key: _only(value[key], rest)} if rest else {key: value[key]}


def _fails(value: Any, type_: type, message: str) -> bool:
    try:
        msgspec.convert(value, type_, strict=True)
    except msgspec.ValidationError as error:
        return str(error) == message
    return False


def _choices(pattern: str) -> list[str]:
    """Show `^(a|b:[x-z]+)$` as `'a'` and `'b:…'`: what to write, not how it is checked."""
    inner = re.fullmatch(r"\^?\(?(.*?)\)?\$?", pattern)
    shown = []
    for choice in (inner.group(1) if inner else pattern).split("|"):
        literal = re.match(r"(?:[\w:. -](?![?*+{]))*", choice)
        start = literal.group() if literal else ""
        shown.append(repr(start if start == choice else f"{start}…"))
    return shown


def _known_keys(type_: type, steps: list[str]) -> tuple[str, ...]:
    """Return the field names of the struct that `steps` lead to, starting at `type_`."""
    node = _type_at(type_, steps)
    if isinstance(node, msgspec.inspect.StructType):
        return tuple(field.encode_name for field in node.fields)
    return ()


def _type_at(type_: type, steps: list[str]) -> Any:
    """Return the msgspec type that `steps` lead to, starting at the struct `type_`."""
    node = _struct_or_container(msgspec.inspect.type_info(type_))
    for step in steps:
        if isinstance(node, msgspec.inspect.StructType):
            node = next(field.type for field in node.fields if field.encode_name == step)
        elif isinstance(node, msgspec.inspect.DictType):
            node = node.value_type
        elif isinstance(node, msgspec.inspect.ListType):
            node = node.item_type
        node = _struct_or_container(node)
    return node


def _struct_or_container(node: Any) -> Any:
    """Unwrap `X | None` to X."""
    if isinstance(node, msgspec.inspect.UnionType):
        return next(t for t in node.types if not isinstance(t, msgspec.inspect.NoneType))
    return node
