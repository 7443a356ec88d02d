"""Back-to-back histograms of kept and dropped documents, from the counts in a manifest."""

from dataclasses import dataclass

import numpy as np

from pipelines.curate.stats import HISTOGRAMS
from pipelines.report.axes import Tick
from shards.inspect import human_bytes


@dataclass(frozen=True)
class Bar:
    """One bin: kept grows up from the middle line, dropped down; `title` says both in words."""

    x: float
    width: float
    up: float
    down: float
    title: str


@dataclass(frozen=True)
class Histogram:
    """A back-to-back histogram; `middle` is the place of the line between the two."""

    heading: str
    unit: str
    bars: list[Bar]
    x: list[Tick]
    middle: float


def histogram(column: str, counts: dict[str, list[int]]) -> Histogram | None:
    """Place the bins of one signal; None if nothing was counted.

    Args:
        column: a key of `pipelines.curate.stats.HISTOGRAMS`, whose edges belong to the counts.
        counts: role (`kept`, `dropped`) → documents per bin.

    Heights are shares of the role's own documents, so that shapes can be compared; both roles have
    the same scale.
    """
    edges = HISTOGRAMS[column]
    kept, dropped = (np.array(counts[role], np.int64) for role in ("kept", "dropped"))
    used = np.flatnonzero(kept + dropped)
    if not len(used):
        return None
    first, last = int(used[0]), int(used[-1]) + 1
    up, down = (part / max(1, part.sum()) for part in (kept, dropped))
    height = float(up.max() + down.max())
    width = 100 / (last - first)
    bars = [
        Bar(
            x=(i - first) * width,
            width=width,
            up=100 * float(up[i]) / height,
            down=100 * float(down[i]) / height,
            title=f"{_edge(column, edges[i])} to {_edge(column, edges[i + 1])}:"
            f" {kept[i]:,} kept ({up[i]:.1%}), {dropped[i]:,} dropped ({down[i]:.1%})",
        )
        for i in range(first, last)
    ]
    heading, unit = _HEADINGS[column]
    every = max(1, -(-(last - first) // 4))  # more labels would touch
    ticks = [
        Tick((i - first) * width, _edge(column, edges[i]))
        for i in range(first, last + 1)
        if (i - first) % every == 0
    ]
    return Histogram(heading, unit, bars, ticks, 100 * float(up.max()) / height)


_HEADINGS = {
    "bytes": ("Length", "bytes of UTF-8, bins double"),
    "zstd_bpb": ("Compressibility", "zstd bits per byte, each document alone"),
    "gopher_words": ("Words", "words per document, bins double"),
}


def _edge(column: str, value: float) -> str:
    if column == "bytes":
        return human_bytes(value)
    return f"{value:g}" if column == "zstd_bpb" else f"{value:,.0f}"
