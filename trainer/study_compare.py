"""Two studies side by side: does what one says hold in the other? (Light: imports no torch.)"""

from typing import Any, Literal

import msgspec
from rich import box
from rich.table import Table

from shards.errors import DatasetError
from trainer.records import ArmResult, StudyRecord
from trainer.show import signed
from trainer.stats import Interval, combine

Answer = Literal["confirmed", "direction only", "open", "contradicted", "same runs"]


class ArmChange(msgspec.Struct, frozen=True, kw_only=True):
    """One arm in studies A and B; `change` = its difference from the control in B − that in A.

    The interval of `change` takes the two studies for independent; sharing validation documents
    makes it wide, never narrow. `answer`: "confirmed" where both studies call the same difference
    and the interval has zero; "direction only" where they call it and the interval leaves out zero:
    one sign, two sizes; "contradicted" where the interval leaves out zero otherwise; else "open",
    two studies that saw no difference included. "same runs" where a run of the arm and one of the
    control gave the very same score in both: nothing was measured twice.
    """

    delta_a: float
    delta_b: float
    change: float
    ci_low: float
    ci_high: float
    verdict_a: str
    verdict_b: str
    answer: Answer


class StudyChange(msgspec.Struct, frozen=True, kw_only=True):
    """What `assay study compare A B` says; `differing` names settings that are not the same.

    `shared_seeds` fix the same first weights and draws in both, so that what they say is not
    independent: empty for studies of two datasets.
    """

    arms: dict[str, ArmChange]
    only_a: list[str]
    only_b: list[str]
    differing: dict[str, tuple[Any, Any]]
    shared_seeds: list[int] = []


def compare_studies(a: StudyRecord, b: StudyRecord) -> StudyChange:
    """Compare two studies arm by arm.

    Raises:
        DatasetError: they have no arm in common that is compared with a control.
    """
    ours, theirs = _compared(a), _compared(b)
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise DatasetError(
            f"the studies have no arm in common: {', '.join(ours)} and {', '.join(theirs)}"
        )
    return StudyChange(
        arms={
            name: _change(a.arms[name], b.arms[name], again=_same_runs(a, b, name))
            for name in shared
        },
        only_a=[name for name in ours if name not in theirs],
        only_b=[name for name in theirs if name not in ours],
        differing=_differing(a, b),
        shared_seeds=[seed for seed in a.study.seeds if seed in b.study.seeds]
        if a.dataset_id == b.dataset_id
        else [],
    )


def _same_runs(a: StudyRecord, b: StudyRecord, name: str) -> bool:
    """Whether some run of an arm, and the control's of that seed, is the same one in both.

    Two runs do not score the same to the last digit by chance.
    """

    def scores(record: StudyRecord) -> set[tuple[int, float, float]]:
        arm, control = record.arms[name].seeds, record.arms[record.control].seeds
        return {(x.seed, x.bpb, y.bpb) for x, y in zip(arm, control, strict=True)}

    return not scores(a).isdisjoint(scores(b))


def _compared(record: StudyRecord) -> list[str]:
    return [name for name, arm in record.arms.items() if arm.delta is not None]


def _change(a: ArmResult, b: ArmResult, *, again: bool) -> ArmChange:
    delta_a, interval_a = _bounds(a)
    delta_b, interval_b = _bounds(b)
    negative = Interval(-interval_a.high, -interval_a.low)
    change = delta_b - delta_a
    shifted = Interval(negative.low + delta_b, negative.high + delta_b)
    both = combine(change, shifted, Interval(interval_b.low - delta_a, interval_b.high - delta_a))
    return ArmChange(
        delta_a=delta_a,
        delta_b=delta_b,
        change=change,
        ci_low=both.low,
        ci_high=both.high,
        verdict_a=a.verdict,
        verdict_b=b.verdict,
        answer="same runs"
        if again
        else _answer(a.verdict, b.verdict, same=both.low <= 0 <= both.high),
    )


def _answer(a: str, b: str, *, same: bool) -> Answer:
    """Say what two verdicts make of each other; `same`: the change's interval has zero."""
    if "INCONCLUSIVE" in (a, b):
        return "open"
    if a == b and a != "no difference seen":
        return "confirmed" if same else "direction only"
    return "open" if same else "contradicted"


def _bounds(arm: ArmResult) -> tuple[float, Interval]:
    if arm.delta is None or arm.ci_low is None or arm.ci_high is None:
        raise ValueError("a control has no difference from itself")
    return arm.delta, Interval(arm.ci_low, arm.ci_high)


def _differing(a: StudyRecord, b: StudyRecord) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, by their key in the recipe or the record."""
    found: dict[str, tuple[Any, Any]] = {}
    if a.dataset_id != b.dataset_id:
        found["dataset_id"] = (a.dataset_id, b.dataset_id)
    for table in ("study", "train"):
        ours, theirs = (msgspec.to_builtins(getattr(record, table)) for record in (a, b))
        for key in ours:
            if ours[key] != theirs[key]:
                found[f"{table}.{key}"] = (ours[key], theirs[key])
    return found


def change_table(change: StudyChange) -> Table:
    """Return the comparison as a table that fits into 80 characters."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("arm", "A", "B", "B − A", "interval", "answer"):
        justify: Literal["left", "right"] = "left" if heading in {"arm", "answer"} else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    for name, arm in change.arms.items():
        table.add_row(
            name,
            signed(arm.delta_a),
            signed(arm.delta_b),
            signed(arm.change),
            f"{signed(arm.ci_low, 3)} to {signed(arm.ci_high, 3)}",
            arm.answer,
        )
    return table
