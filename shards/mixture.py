"""Mixtures: which source a sample comes from, as a function of its global index alone.

A stage says from which global index on which weights hold. Samples are dealt in blocks of `BLOCK`:
after n samples of a stage with cumulative weights W_0 ≤ … ≤ W_S = 1, source s has had

    count_s(n) = ⌊n·W_s + ½⌋ − ⌊n·W_{s−1} + ½⌋

samples, so every block, and every run of blocks, has each source's share to within one sample; a
permutation keyed by (seed, block) deals them out inside the block. count_s is closed, so sample g
is found in constant time and no state but g exists. A source that has been read `max_epochs` times
leaves: its weight goes to the others, from the block on in which it would go over.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.hashing import stable_hash
from shards.jit import kernel
from shards.mixture_config import BLOCK, Stage, check_schedule
from shards.order import order_key, permuted

MIXTURE_VERSION = "blocks1024-feistel/1"
"""Name and version of the rule above: a change of it changes every run with a mixture."""

UNIT = 1 << 20
"""Weights are whole numbers of this part, so that no rounding of floats decides."""

_SALT = 0x6D69787475726521
_ENDLESS = 1 << 42

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mixture:
    """A schedule, ready for use; `plan_mixture` makes it.

    names: S sources, sorted.
    starts: int64[K], first global index of each stage, the caps' own stages included.
    cumulative: int64[K, S + 1], cumulative weights in parts of `UNIT`.
    before: int64[K, S], samples of each source before the stage.
    end: global index from which all sources are used up, 2^42 where that never comes.
    digest: 32 hex digits: two mixtures with equal ones give equal streams from equal sources.
    """

    names: list[str]
    starts: Int64
    cumulative: Int64
    before: Int64
    end: int
    digest: str

    def assign(self, indices: Int64, seed: int) -> tuple[Int64, Int64]:
        """Return, for global indices int64[B], the source and which of its samples: int64[B] each.

        The second number goes on over epochs: sample k of a source with N samples is its place
        k % N of epoch k // N.
        """
        return assign(indices, self.starts, self.cumulative, self.before, seed ^ _SALT)


def plan_mixture(
    stages: Sequence[Stage],
    samples: Mapping[str, int],
    max_epochs: Mapping[str, float] | None = None,
) -> Mixture:
    """Check a schedule and work it out.

    Args:
        stages: the first starts at 0, later ones at rising multiples of `BLOCK`.
        samples: samples of each source in one epoch.
        max_epochs: how often a source may be read; sources that are not named have no limit.

    Raises:
        RecipeError: an unknown source, a weight below 0 or too small to be drawn, a stage that
            starts where it cannot, or a limit that is not above 0.
    """
    names = sorted(samples)
    limits = dict(max_epochs or {})
    check_schedule(stages, names, limits)
    rests = [int(min(limits[n] * samples[n], _ENDLESS)) if n in limits else _ENDLESS for n in names]
    ends = [*(stage.start for stage in stages[1:]), _ENDLESS]
    starts, rows, befores = [], [], []
    before = [0] * len(names)
    closed: set[str] = set()
    start = 0
    for stage, end in zip(stages, ends, strict=True):
        while start < end and (
            weights := {n: w for n, w in stage.weights.items() if w and n not in closed}
        ):
            cumulative = _cumulative([weights.get(name, 0.0) for name in names])
            lasts = {
                name: _whole_blocks(cumulative, n, rests[n] - before[n])
                for n, name in enumerate(names)
                if name in weights
            }
            full = {name for name, blocks in lasts.items() if blocks == 0}
            if full:
                closed |= full
                continue
            starts.append(start)
            rows.append(cumulative)
            befores.append(before)
            until = min(end, start + min(lasts.values()) * BLOCK)
            before = [b + _count(cumulative, n, until - start) for n, b in enumerate(before)]
            start = until
        if start < end:
            break  # all sources of this stage are used up
    return Mixture(
        names=names,
        starts=np.array(starts, np.int64),
        cumulative=np.array(rows, np.int64).reshape(-1, len(names) + 1),
        before=np.array(befores, np.int64).reshape(-1, len(names)),
        end=start,
        digest=stable_hash([MIXTURE_VERSION, names, starts, rows, start]),
    )


def _cumulative(weights: list[float]) -> list[int]:
    """Return cumulative weights in parts of `UNIT`, rounded each to the nearest part."""
    total = math.fsum(weights)
    sums = [math.fsum(weights[:n]) for n in range(len(weights) + 1)]
    return [round(part / total * UNIT) for part in sums]


def _count(cumulative: list[int], source: int, n: int) -> int:
    """Return count_s(n)."""
    low, high = cumulative[source], cumulative[source + 1]
    return (n * high + UNIT // 2) // UNIT - (n * low + UNIT // 2) // UNIT


def _whole_blocks(cumulative: list[int], source: int, rest: int) -> int:
    """Return in how many blocks a source has at most `rest` samples."""
    if rest >= _ENDLESS // 2:
        return _ENDLESS // BLOCK
    width = cumulative[source + 1] - cumulative[source]
    blocks = (rest + 2) * UNIT // (width * BLOCK)
    while blocks and _count(cumulative, source, blocks * BLOCK) > rest:
        blocks -= 1
    return blocks


@kernel(
    "Tuple((int64[::1], int64[::1]))(int64[::1], int64[::1], int64[:, ::1], int64[:, ::1], int64)"
)
def assign(
    indices: Int64, starts: Int64, cumulative: Int64, before: Int64, seed: int
) -> tuple[Int64, Int64]:
    """Return source and its own sample number of each global index (see `Mixture.assign`)."""
    sources, samples = np.empty_like(indices), np.empty_like(indices)
    for i in range(len(indices)):
        stage = np.searchsorted(starts, indices[i], side="right") - 1
        block, place = indices[i] // BLOCK, indices[i] % BLOCK
        place = permuted(place, BLOCK, order_key(seed, block))
        first = block * BLOCK - starts[stage]
        low_first, low_last, source = np.int64(0), np.int64(0), 0
        while True:
            weight = cumulative[stage, source + 1]
            high_first = (first * weight + UNIT // 2) // UNIT
            high_last = ((first + BLOCK) * weight + UNIT // 2) // UNIT
            here = high_first - low_first
            dealt = high_last - low_last - here
            if place < dealt:
                break
            place -= dealt
            low_first, low_last, source = high_first, high_last, source + 1
        sources[i] = source
        samples[i] = before[stage, source] + here + place
    return sources, samples
