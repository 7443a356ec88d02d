"""Gather everything that a report shows into one typed value."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.report import ledger
from pipelines.report.ladder import Rung, StagePrice, rungs, stage_prices
from pipelines.report.ledger import DUPLICATES, Cluster, Example, Pair
from pipelines.report.parts import Parts, read_parts
from shards.manifest import Counts, Manifest


@dataclass(frozen=True)
class Step:
    """A step of the waterfall: how much of what was read `reason` took away.

    `first` is where it begins, in documents and in bytes counted from 0 (what is still there
    after it); `reason` is "read" for the first step and "kept" for the last.
    """

    reason: str
    documents: int
    bytes: int
    first_document: int
    first_byte: int


@dataclass(frozen=True)
class SourceRow:
    """Counts of one source, and its most frequent reasons of dropping (at most three)."""

    name: str
    counts: Counts
    reasons: list[tuple[str, int]]


@dataclass(frozen=True)
class Documents:
    """What the curated dataset shows beside its manifest."""

    waterfall: list[Step]
    sources: list[SourceRow]
    clusters: list[Cluster]
    pairs: list[Pair]
    examples: dict[str, list[Example]]


@dataclass(frozen=True)
class Report:
    """All that a report shows; `documents` is None, `stages` empty where curate did not run."""

    parts: Parts
    documents: Documents | None
    ladder: list[Rung]
    stages: list[StagePrice]


def gather(root: Path) -> Report:
    """Read the chain in `root` and compute what its records do not hold.

    Raises:
        DatasetError: no such folder, or nothing of a chain in it.
        CorruptError: a file is not as it was written.
    """
    parts = read_parts(root)
    return Report(
        parts=parts,
        documents=gather_documents(root / "curated", parts.curated) if parts.curated else None,
        ladder=rungs(root, parts.curated, parts.tokens, parts.study),
        stages=stage_prices(parts.curated) if parts.curated else [],
    )


def gather_documents(folder: Path, manifest: Manifest) -> Documents:
    """Read the ledger and the texts that are shown."""
    content = manifest.content
    rows = ledger.read_ledger(folder, content.shards["dropped"])
    clusters = ledger.summarize_clusters(rows, content.stats.get("clusters", []))
    pairs = ledger.pick_pairs(rows, clusters)
    examples = ledger.pick_examples(rows)
    wanted: list[dict[str, Any]] = [row for _, row in pairs]
    wanted += [row for group in examples.values() for row in group]
    dropped = ledger.fetch(folder, content.shards["dropped"], {row["doc_id"] for row in wanted})
    kept = ledger.fetch(folder, content.shards["kept"], {row["matched"] for _, row in pairs})
    return Documents(
        waterfall=waterfall(content.total, ledger.bytes_by_reason(rows)),
        sources=[source_row(name, counts) for name, counts in _by_size(content.sources)],
        clusters=clusters,
        pairs=ledger.make_pairs(pairs, dropped, kept),
        examples=ledger.make_examples(examples, dropped),
    )


def waterfall(total: Counts, sizes: dict[str, int]) -> list[Step]:
    """Return the steps from read to kept: rules by size, then exact and near duplicates.

    That is the order in which a document's reason is decided.

    Args:
        total: counts of the dataset.
        sizes: reason → bytes of text.
    """
    steps = [Step("read", total.read, total.bytes_read, 0, 0)]
    left, left_bytes = total.read, total.bytes_read
    rules = sorted(set(total.drops) - set(DUPLICATES), key=lambda name: (-total.drops[name], name))
    for reason in [*rules, *(name for name in DUPLICATES if name in total.drops)]:
        left -= total.drops[reason]
        left_bytes -= sizes.get(reason, 0)
        steps.append(Step(reason, total.drops[reason], sizes.get(reason, 0), left, left_bytes))
    return [*steps, Step("kept", total.kept, total.bytes_kept, 0, 0)]


def source_row(name: str, counts: Counts) -> SourceRow:
    """Return a source with its most frequent reasons."""
    reasons = sorted(counts.drops.items(), key=lambda item: (-item[1], item[0]))[:3]
    return SourceRow(name, counts, reasons)


def _by_size(sources: dict[str, Counts]) -> list[tuple[str, Counts]]:
    return sorted(sources.items(), key=lambda item: (-item[1].bytes_read, item[0]))
