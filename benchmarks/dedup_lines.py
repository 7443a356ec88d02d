"""Lines, paragraphs and long substrings that repeat in the development corpus: speed, what goes.

    python -m benchmarks.dedup_lines

All passes on the corpus as one batch, in CPU time. Needs the corpora beside the repository.
"""

import json

import numpy as np

from benchmarks.corpus import CORPUS, Flat, cpu_seconds, flat, records
from dedup.lines import (
    PassageUnit,
    Repeats,
    find_passages,
    find_repeats,
    remove_spans,
    repeated,
    tabulate,
)
from dedup.substrings import Spans, find_anchors, find_windows, merge_anchors, removable_spans


def main() -> None:
    batch = flat([record["text"] for record in records(CORPUS)])
    lines = {unit: measure(batch, unit) for unit in ("line", "paragraph")}
    print(json.dumps({**lines, "substring": substrings(batch)}))


def measure(batch: Flat, unit: PassageUnit) -> dict[str, float]:
    seconds = cpu_seconds(lambda: both_passes(batch, unit), 3)
    passages, repeats, left = both_passes(batch, unit)
    return {
        "mb_per_cpu_s": round(batch[0].size / 1e6 / seconds),
        "passages": passages,
        "removed": repeats.doc.size,
        "removed_share_of_bytes": round(1 - left / batch[0].size, 4),
    }


def both_passes(batch: Flat, unit: PassageUnit) -> tuple[int, Repeats, int]:
    """Return (passages, what is removed, bytes that are left)."""
    passages = find_passages(*batch, unit)
    keys = np.arange(batch[1].size - 1, dtype=np.uint64)
    repeats = find_repeats(passages, keys, repeated(tabulate(passages, keys)))
    data, _ = remove_spans(*batch, repeats.doc, repeats.start, repeats.end)
    return passages.hash.size, repeats, data.size


def substrings(batch: Flat) -> dict[str, float]:
    """Find the windows of 50 words that repeat, and take them out."""
    keys = np.arange(batch[1].size - 1, dtype=np.uint64)

    def passes() -> tuple[int, Spans]:
        windows = find_windows(*batch, merge_anchors([find_anchors(*batch)], 2))
        repeats = find_repeats(windows, keys, repeated(tabulate(windows, keys)))
        return windows.hash.size, removable_spans(windows, repeats, keys)

    seconds = cpu_seconds(passes, 1)
    hashed, spans = passes()
    return {
        "mb_per_cpu_s": round(batch[0].size / 1e6 / seconds),
        "windows_hashed": hashed,
        "spans": spans.doc.size,
        "documents": np.unique(spans.doc).size,
        "removed_share_of_bytes": round(int((spans.end - spans.start).sum()) / batch[0].size, 4),
    }


if __name__ == "__main__":
    main()
