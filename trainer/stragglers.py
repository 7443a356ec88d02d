"""Which rank the others wait for: each rank's own time in a step, and how much of it was data.

A rank's own time leaves out exchanges, since all ranks take as long as the slowest there.
"""

import statistics
from dataclasses import dataclass, field

SLOW = 1.25
"""Own time over the median of all ranks from which a rank is called a straggler."""

WINDOW = 100
"""Steps of one report."""


@dataclass
class RankTimes:
    """Seconds of each rank: of the whole run so far, and of the steps since the last report."""

    seconds: list[float] = field(default_factory=list)
    wait_seconds: list[float] = field(default_factory=list)
    steps: int = 0
    _seconds_before: list[float] = field(default_factory=list)
    _wait_before: list[float] = field(default_factory=list)

    def add(self, rows: list[list[float]]) -> None:
        """Add a step: own seconds (waiting included) and seconds waiting for data of each rank."""
        if not self.seconds:
            self.seconds, self.wait_seconds = [0.0] * len(rows), [0.0] * len(rows)
            self._reset()
        for rank, (seconds, wait) in enumerate(rows):
            self.seconds[rank] += seconds
            self.wait_seconds[rank] += wait
        self.steps += 1

    def report(self) -> str | None:
        """Name the slowest rank of the last `WINDOW` steps, if it is slow; None between reports."""
        if self.steps < WINDOW:
            return None
        own = _differences(self.seconds, self._seconds_before)
        wait = _differences(self.wait_seconds, self._wait_before)
        steps = self.steps
        self._reset()
        # Of two ranks the faster one is what to compare with; a mean of both would hide the slower.
        typical = statistics.median_low(own)
        slowest = max(range(len(own)), key=own.__getitem__)
        if own[slowest] < SLOW * typical:
            return None
        return (
            f"rank {slowest} is slow: {1000 * own[slowest] / steps:.1f} ms a step of its own,"
            f" {1000 * wait[slowest] / steps:.1f} of them waiting for data; typical are"
            f" {1000 * typical / steps:.1f} ms"
        )

    def facts(self) -> list[dict[str, float]]:
        """Return the sums of every rank, in their order."""
        pairs = zip(self.seconds, self.wait_seconds, strict=True)
        return [{"seconds": seconds, "wait_seconds": wait} for seconds, wait in pairs]

    def _reset(self) -> None:
        self._seconds_before, self._wait_before = list(self.seconds), list(self.wait_seconds)
        self.steps = 0


def _differences(now: list[float], before: list[float]) -> list[float]:
    return [a - b for a, b in zip(now, before, strict=True)]
