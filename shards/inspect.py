"""What a dataset holds, from its manifest alone: as plain data, or as tables for a terminal."""

from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from shards.manifest import Counts, Manifest

_TOP_SOURCES = 15
_STATS = ("repeats", "evaluation", "masked", "languages")
"""Of the manifest's stats, those that say what was done to the documents or what they are."""


def summary(manifest: Manifest) -> dict[str, Any]:
    """Return the facts of a dataset as plain data, for `assay inspect --json`.

    `bytes` counts UTF-8 bytes of text read, kept and cut out of kept documents, and bytes of the
    shard files.
    """
    content = manifest.content
    total = content.total
    entries = [entry for group in content.shards.values() for entry in group]
    facts = {
        "dataset_id": manifest.dataset_id,
        "kind": content.kind,
        "documents": {"read": total.read, "kept": total.kept, "dropped": total.dropped},
        "drops": dict(sorted(total.drops.items())),
        "tokens": total.tokens,
        "shards": len(entries),
        "bytes": {
            "read": total.bytes_read,
            "kept": total.bytes_kept,
            "cut": _cut(manifest),
            "shards": sum(entry.bytes for entry in entries),
        },
        "sources": content.sources,
        "inputs": content.inputs,
        "parents": content.parents,
        "recipe": content.recipe,
        "definitions": content.definitions,
        "stats": {name: content.stats[name] for name in _STATS if content.stats.get(name)},
        "tokenizer": content.tokenizer,
        "stage_key": manifest.stage_key,
        "run": manifest.run,
    }
    plain: dict[str, Any] = msgspec.to_builtins(facts)
    return plain


def render(manifest: Manifest) -> RenderableType:
    """Return the facts of a dataset as rich tables."""
    content, total = manifest.content, manifest.content.total
    parts: list[RenderableType] = [_facts(manifest), Text()]
    if total.drops:
        parts += [_drops(total), Text()]
    if content.sources:
        parts.append(_sources(content.sources, tokens=content.kind == "tokens"))
    return Group(*parts)


def human_bytes(size: float) -> str:
    """Return a size with a binary unit and three digits: `1.25 MiB`."""
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 999.5:  # above, three digits would round to 1e+03
            break
        size, unit = size / 1024, larger
    return f"{size:.3g} {unit}"


def _facts(manifest: Manifest) -> Table:
    content, total = manifest.content, manifest.content.total
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    roles = [f"{len(group)} of {role}" for role, group in content.shards.items()]
    size = sum(entry.bytes for group in content.shards.values() for entry in group)
    table.add_row("dataset", f"[bold]{manifest.dataset_id}[/]  {content.kind}")
    table.add_row(
        "documents",
        f"{total.read:,} read = [green]{total.kept:,} kept[/] + [red]{total.dropped:,} dropped[/]"
        f"{_share(total.dropped, total.read)}",
    )
    table.add_row(
        "text",
        f"{human_bytes(total.bytes_read)} read, {human_bytes(total.bytes_kept)} kept"
        f"{_share(total.bytes_kept, total.bytes_read)}",
    )
    repeats = content.stats.get("repeats")
    if repeats and repeats.get("spans"):
        table.add_row(
            "repeats",
            f"{repeats['spans']:,} spans in {repeats['documents']:,} documents,"
            f" {human_bytes(_cut(manifest))} cut",
        )
    if total.tokens:
        table.add_row("tokens", f"{total.tokens:,}")
    if content.tokenizer:
        shown = [f"{key} {value}" for key, value in content.tokenizer.items() if key != "sha256"]
        digest = str(content.tokenizer.get("sha256", ""))[:12]
        scalars = [text for text in shown if len(text) < 40]
        table.add_row("tokenizer", Text(f"{digest}…  {', '.join(scalars)}"))
    table.add_row("shards", f"{', '.join(roles) or 'none'}; {human_bytes(size)} on disk")
    if content.inputs:
        read = sum(entry.bytes for entry in content.inputs)
        table.add_row("inputs", f"{len(content.inputs)} files, {human_bytes(read)}")
    for parent in content.parents:
        table.add_row("parent", parent)
    table.add_row("stage key", manifest.stage_key)
    return table


def _cut(manifest: Manifest) -> int:
    """Return the bytes of text that were cut out of kept documents."""
    return int(manifest.content.stats.get("repeats", {}).get("bytes", 0))


def _drops(total: Counts) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("dropped for", "documents", "of read"):
        table.add_column(name, justify="left" if name == "dropped for" else "right")
    for reason, count in sorted(total.drops.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(Text(reason), f"{count:,}", _percent(count, total.read))
    return table


def _sources(sources: dict[str, Counts], *, tokens: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("source", overflow="fold")
    for name in ("read", "kept", "dropped", "text kept", *(["tokens"] if tokens else [])):
        table.add_column(name, justify="right")
    ranked = sorted(sources.items(), key=lambda item: (-item[1].bytes_read, item[0]))
    for name, counts in ranked[:_TOP_SOURCES]:
        row = [f"{counts.read:,}", f"{counts.kept:,}", _percent(counts.dropped, counts.read)]
        row += [human_bytes(counts.bytes_kept), *([f"{counts.tokens:,}"] if tokens else [])]
        table.add_row(Text(name), *row)
    if len(ranked) > _TOP_SOURCES:
        table.add_row(Text(f"… and {len(ranked) - _TOP_SOURCES} more (--json has all)", "dim"))
    return table


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _share(part: int, whole: int) -> str:
    return f" ({part / whole:.1%})" if whole else ""
