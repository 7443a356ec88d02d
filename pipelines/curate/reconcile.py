"""Nothing disappears silently: read = kept + dropped, per source and per reason."""

from collections.abc import Iterable

from shards.errors import ReconcileError
from shards.manifest import Counts


def add_counts(parts: Iterable[dict[str, Counts]]) -> dict[str, Counts]:
    """Add up counts per source over any number of parts."""
    total: dict[str, Counts] = {}
    for part in parts:
        for source, count in part.items():
            _add_into(total.setdefault(source, Counts()), count)
    return total


def reconcile(scanned: dict[str, Counts], written: dict[str, Counts]) -> Counts:
    """Check what was written against what was read, and return the dataset's totals.

    Raises:
        ReconcileError: naming the source and the numbers that do not match.
    """
    for source in sorted(scanned.keys() | written.keys()):
        read = scanned.get(source, Counts())
        wrote = written.get(source, Counts())
        if read.read != wrote.read or read.bytes_read != wrote.bytes_read:
            raise ReconcileError(
                f"source {source!r}: {read.read} documents ({read.bytes_read} bytes) were read but"
                f" {wrote.read} ({wrote.bytes_read} bytes) arrived in shards; nothing was committed"
            )
        if wrote.kept + wrote.dropped != wrote.read or sum(wrote.drops.values()) != wrote.dropped:
            raise ReconcileError(
                f"source {source!r}: {wrote.read} read ≠ {wrote.kept} kept + {wrote.dropped}"
                f" dropped (reasons: {wrote.drops}); nothing was committed"
            )
    total = Counts()
    for count in written.values():
        _add_into(total, count)
    return total


def _add_into(total: Counts, count: Counts) -> None:
    total.read += count.read
    total.kept += count.kept
    total.dropped += count.dropped
    total.bytes_read += count.bytes_read
    total.bytes_kept += count.bytes_kept
    total.tokens += count.tokens
    for reason, number in count.drops.items():
        total.drops[reason] = total.drops.get(reason, 0) + number
