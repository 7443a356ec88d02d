"""What a study says of the worth of its cells (sources, and bins of a signal), as a grid."""

from dataclasses import dataclass

from pipelines.report.axes import MINUS
from pipelines.report.study import CellWorth, Study

PER_SHARE = 0.1
"""Worth is shown for a tenth of an arm's bytes."""


@dataclass(frozen=True)
class Square:
    """One cell: its effect and interval, what the mouse shows, its colour, whether it is sure.

    `strength` is in [0, 1], of the strongest effect of the grid; `kind` is better, worse or open.
    """

    text: str
    interval: str
    title: str
    kind: str
    strength: float


@dataclass(frozen=True)
class WorthGrid:
    """Rows of sources, columns of bins (one column where there is no signal)."""

    signal: str | None
    columns: list[str]
    rows: list[tuple[str, list[Square | None]]]
    arms: int
    left_out_error: float
    plain_error: float
    left_out_rank: float | None


def worth_grid(study: Study) -> WorthGrid | None:
    """Place all cells; None where the study fitted no worth."""
    worth = study.worth
    if worth is None or not worth.cells:
        return None
    signal = study.study.get("cells", {}).get("signal")
    strongest = max(abs(cell.effect) for cell in worth.cells) or 1.0
    total = sum(cell.bytes for cell in worth.cells) or 1
    placed = {
        _place(cell.cell, signal): _square(cell, strongest, total, called=study.gate_passed)
        for cell in worth.cells
    }
    bins = sorted({column for _, column in placed})
    return WorthGrid(
        signal=signal,
        columns=[str(number) for number in bins] if signal else [],
        rows=[
            (source, [placed.get((source, column)) for column in bins])
            for source in dict.fromkeys(source for source, _ in placed)
        ],
        arms=len(worth.arms),
        left_out_error=worth.left_out_error,
        plain_error=worth.plain_error,
        left_out_rank=worth.left_out_rank,
    )


def _place(cell: str, signal: str | None) -> tuple[str, int]:
    """Return a cell's source and bin; a source may have a slash of its own."""
    if not signal:
        return cell, 0
    source, _, number = cell.rpartition("/")
    return source, int(number)


def _square(cell: CellWorth, strongest: float, total: int, *, called: bool) -> Square:
    """Describe a cell; in a study that failed its gate no effect is `called`."""
    low, high = cell.interval
    sure = "better" if high < 0 else "worse" if low > 0 else "open"

    def signed(value: float) -> str:
        return f"{PER_SHARE * value:+.3f}".replace("-", MINUS)

    return Square(
        text=signed(cell.effect),
        interval=f"{signed(low)} to {signed(high)}",
        title=f"{cell.cell}: {signed(cell.effect)} ({signed(low)} to {signed(high)});"
        f" {100 * cell.bytes / total:.1f} % of the control",
        kind=sure if called else "open",
        strength=abs(cell.effect) / strongest,
    )
