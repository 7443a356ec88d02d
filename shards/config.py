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


def load_recipe(path: str | Path, overrides: tuple[str, ...] = ()) -> Table:
    """Read a recipe and apply `--set` overrides.

    Args:
        path: the TOML file.
        overrides: assignments `a.b=value`; the value is TOML (`3`, `["x"]`, `true`) or, where it
            is not valid TOML, a bare string.

    Raises:
        RecipeError: no such file, broken TOML, unknown top-level key, malformed override.
    """
    file = Path(path)
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{file}: no such recipe file") from None
    except IsADirectoryError:
        raise RecipeError(f"{file}: is a directory, not a recipe file") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file}: not UTF-8 text ({error.reason})") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{file}: not valid TOML: {error}") from None
    for override in overrides:
        _assign(table, override)
    for key in table:
        if key not in SECTIONS:
            raise RecipeError(f"{file}: unknown key {key!r}{did_you_mean(key, SECTIONS)}")
    return table


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
    except tomllib.TOMLDecodeError:
        value = text
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


def _explain(message: str, section: str, value: Any, type_: type) -> str:
    """Rewrite a msgspec message with the recipe's own key path, the value and a suggestion."""
    at = re.search(r" - at `\$(.*)`$", message)
    inner = at.group(1) if at else ""
    text = message[: at.start()] if at else message
    steps = re.findall(r"\w+|\.\.\.", inner)
    unknown = re.search(r"unknown field `(.+)`", text)
    if unknown:
        key = unknown.group(1)
        return f"unknown key {section}{inner}.{key}{did_you_mean(key, _known_keys(type_, steps))}"
    text = f"{text[0].lower()}{text[1:]}"
    node = _type_at(type_, steps)
    if isinstance(node, msgspec.inspect.LiteralType):
        text = f"expected one of {', '.join(repr(choice) for choice in node.values)}"
    for step in steps:
        if step == "...":  # msgspec does not say which key of a free table it was
            return f"{section}{inner}: {text}"
        value = value[int(step)] if isinstance(value, list) else value.get(step)
    return f"{section}{inner} = {value!r}: {text}"


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
