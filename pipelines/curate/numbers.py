"""Elements of the curate and tokenize jobs are numbers: of ranges, fragments, shards."""

from collections.abc import Iterator
from typing import Any

from pipelines.beam import beam

_SPAN = 1000
"""Numbers that stand for themselves in a graph; more are given as spans of so many, since a graph
of 3 million ranges would be a file of 30 MB."""


def numbers(pipeline: Any, label: str, count: int) -> Any:
    """Return a collection of 0, 1, …, `count` - 1, spread over the workers."""
    if count <= _SPAN:
        return pipeline | label >> beam.Create(list(range(count)), reshuffle=True)
    spans = [(first, min(first + _SPAN, count)) for first in range(0, count, _SPAN)]
    return (
        pipeline
        | f"{label}-spans" >> beam.Create(spans, reshuffle=False)
        | label >> beam.FlatMap(_expand).with_output_types(int)
        | f"{label}-spread" >> beam.Reshuffle()
    )


def _expand(span: tuple[int, int]) -> Iterator[int]:
    return iter(range(*span))
