"""Decontamination of the development corpus against public evaluation sets: speed and hits.

As a control, every item that is long enough is planted in a document, in capitals and with its
white space changed: all of them must be found whole.

    python -m benchmarks.decontamination

Needs the corpora beside the repository. CPU time, median of three runs; the index is made once.
"""

import json
import sys
import time
from collections import Counter

import numpy as np

from benchmarks.corpus import CORPUS, Flat, cpu_seconds, flat, records
from dedup.contamination import EvaluationIndex, find_contamination, index_items

ITEMS = CORPUS.with_name("decontam.jsonl.zst")
THRESHOLDS = (0.0, 0.2, 0.5, 0.8)


def main() -> None:
    items = list(records(ITEMS))
    documents = list(records(CORPUS))
    batch = flat([record["text"] for record in documents])
    texts = flat([item["text"] for item in items])
    start = time.process_time()
    index = index_items(*texts)
    index_s = time.process_time() - start
    seconds = cpu_seconds(lambda: find_contamination(*batch, index), 3)
    found = find_contamination(*batch, index)
    sets = np.array([item["set"] for item in items])
    show(found.overlap, sets[found.item])
    print(
        json.dumps(
            {
                "items": len(items),
                "items_too_short": int((index.n_ngrams == 0).sum()),
                "ngrams": index.hash.size,
                "index_cpu_s": round(index_s, 2),
                "documents": len(documents),
                "mb": round(batch[0].size / 1e6, 1),
                "mb_per_cpu_s": round(batch[0].size / 1e6 / seconds),
                "documents_found": {
                    str(least): int((found.overlap > least).sum()) for least in THRESHOLDS
                },
                "planted": planted(batch, [item["text"] for item in items], index),
                "bytes_in_spans": int((found.end - found.start).sum()),
            }
        )
    )


def planted(batch: Flat, items: list[str], index: EvaluationIndex) -> dict[str, int]:
    """Plant items at the ends of documents and count those that are found whole."""
    data, offsets = batch
    wanted = np.flatnonzero(index.n_ngrams).tolist()
    texts = []
    for doc, item in enumerate(wanted):
        host = data[offsets[doc] : offsets[doc + 1]].tobytes().decode()
        # One code point to one, so that a word stays the word that `word-v1` folds it to.
        upper = "".join(c.upper() if c.isascii() else c for c in items[item])
        texts.append(host + "\n" + "  ".join(upper.split()) + "\n")
    found = find_contamination(*flat(texts), index)
    return {"items": len(wanted), "found_whole": int((found.overlap == 1).sum())}


def show(overlap: np.ndarray, sets: np.ndarray) -> None:
    """Print the sets that most documents are matched with, and how much of an item they hold."""
    whole = Counter(sets[overlap > 0.5].tolist())
    for name, count in Counter(sets.tolist()).most_common(12):
        print(f"{name:28}{count:6} documents, {whole[name]:5} over 0.5", file=sys.stderr)


if __name__ == "__main__":
    main()
