"""Line and paragraph deduplication of the development corpus: speed and what it removes.

    python -m benchmarks.dedup_lines

Both passes on the corpus as one batch, in CPU time. Needs the corpora beside the repository.
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


def main() -> None:
    batch = flat([record["text"] for record in records(CORPUS)])
    print(json.dumps({unit: measure(batch, unit) for unit in ("line", "paragraph")}))


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


if __name__ == "__main__":
    main()
