"""What a study's runs say beyond the difference: code length, repetition, signals, worth.

Everything here reads finished runs and the dataset's columns, and adds to the record of a study.
"""

from collections.abc import Collection
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from shards.hashing import xxh128
from trainer.data import ZSTD_COLUMN
from trainer.records import ArmResult, RunRecord, read_metrics
from trainer.stats import Floats, t_interval
from trainer.study_arms import Arm, Arms
from trainer.study_catalogue import Catalogue
from trainer.study_config import StudyConfig
from trainer.study_gate import curve_points, decay_start
from trainer.study_records import (
    Prequential,
    RepeatFit,
    SignalRank,
    WorthModel,
)
from trainer.study_repeats import Points, fit_repeats
from trainer.study_worth import signal_ranks, worth_model

Records = dict[str, list[RunRecord]]
Folders = dict[str, list[Path]]

_NO_SIGNAL = {"source_id", "bytes"}


def by_content(study: StudyConfig, failed: Collection[str] = ()) -> list[str]:
    """Return the arms that differ in what they hold, the control first.

    Left out are those that read it repeatedly, or in an order of their own, and those that `failed`
    the gate alone. So is a curriculum's twin: it is a draw from an arm, and not like another one.
    """
    special = {*study.curricula, *(f"shuffled-{name}" for name in study.curricula),
               *(f"repeat-{times}" for times in study.repeats), *failed}  # fmt: skip
    names = [name for name in study.arm_names if name not in special]
    return [study.control, *(name for name in names if name != study.control)]


def text_ladder(stream: npt.NDArray[np.int64], arm: Arm, catalogue: Catalogue) -> dict[str, float]:
    """Return bits per byte of an arm's own text under models without context (see `ArmResult`).

    Args:
        stream: int64[t], all its tokens, as often as it holds them.
        arm: the arm.
        catalogue: all documents.
    """
    vocabulary = catalogue.dataset.vocab_size
    counts = np.bincount(stream, minlength=vocabulary)
    seen = counts[counts > 0].astype(np.float64)
    entropy = float((seen * np.log2(len(stream) / seen)).sum())
    ladder = {}
    zstd = catalogue.column(ZSTD_COLUMN)
    weights = catalogue.bytes * arm.copies
    if zstd is not None and not np.isnan(zstd[weights > 0]).any():
        ladder["zstd"] = float(np.average(zstd[weights > 0], weights=weights[weights > 0]))
    size = max(1, arm.view.bytes)
    return ladder | {
        "fixed": len(stream) * float(np.log2(vocabulary)) / size,
        "unigram": entropy / size,
    }


def first_reading(run: RunRecord, arm: Arm, folder: Path) -> tuple[float, float] | None:
    """Return the bits of coding an arm as a run reads it for the first time, and the share of it.

    Each batch is coded with the model that has read those before it; a batch that begins a second
    reading counts by the part of it that is still of the first. None where a step left no loss, and
    where samples are packed or mixed, so that there is no one first reading.
    """
    if run.config.packing != "none" or run.config.mixture:
        return None
    rows = read_metrics(folder, run.steps)
    if len(rows) < run.steps:
        return None
    samples = -(-(arm.view.tokens - 1) // run.config.sequence_length)
    batches = samples / run.config.batch_size
    parts = np.clip(batches - np.arange(run.steps), 0.0, 1.0)
    losses = np.array([row.loss for row in rows])
    share = min(1.0, run.steps / batches)
    return float((losses * parts).sum() * run.config.batch_tokens / np.log(2)), share


def compare_prequential(
    results: dict[str, ArmResult],
    arms: Arms,
    records: Records,
    folders: Folders,
    study: StudyConfig,
) -> dict[str, ArmResult]:
    """Add code lengths, and their differences where two arms read the same documents whole."""
    codes: dict[str, Floats] = {}
    whole: dict[str, tuple[str, ...]] = {}
    found: dict[str, Prequential] = {}
    for name, runs in records.items():
        own = [arms[run.seed][name] for run in runs]
        parts = [
            first_reading(run, arm, folder)
            for run, arm, folder in zip(runs, own, folders[name], strict=True)
        ]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            continue
        sizes = [arm.view.bytes * share for arm, (_, share) in zip(own, known, strict=True)]
        codes[name] = np.array([bits for bits, _ in known]) / np.array(sizes)
        read = float(np.mean([share for _, share in known]))
        if read == 1.0:
            whole[name] = tuple(xxh128(arm.copies.tobytes()).hex() for arm in own)
        found[name] = Prequential(bpb=float(codes[name].mean()), read=read)
    for name, code in list(found.items()):
        against = _same_bytes(name, whole, study)
        if against is not None:
            pairs = codes[name] - codes[against]
            found[name] = msgspec.structs.replace(
                code, against=against, delta=float(pairs.mean()),
                interval=tuple(t_interval(pairs, study.level)),
            )  # fmt: skip
    return {
        name: msgspec.structs.replace(
            arm,
            prequential=found.get(name),
            ladder=arm.ladder | ({"prequential": found[name].bpb} if name in found else {}),
        )
        for name, arm in results.items()
    }


def _same_bytes(name: str, whole: dict[str, tuple[str, ...]], study: StudyConfig) -> str | None:
    """Return the arm with which this one is compared: its twin, the control, or the first."""
    if name not in whole:
        return None
    same = [other for other in whole if whole[other] == whole[name]]
    best = [o for o in (f"shuffled-{name}", study.control, same[0]) if o in same]
    twins = {f"shuffled-{key}" for key in study.curricula}
    against = best[0]
    return None if against == name or (name in twins and against in study.curricula) else against


def repeat_fit(
    arms: Arms, records: Records, study: StudyConfig, failed: Collection[str] = ()
) -> RepeatFit | None:
    """Fit the worth of repeated data to the repeat arms; None without any.

    Arms that `failed` the gate are left out, and named: what they learned is too little to tell.
    """
    if not study.repeats:
        return None
    pool = study.repeat_of or study.control
    names = [pool, *(f"repeat-{times}" for times in study.repeats)]
    left_out = [name for name in names if name in failed]
    used = [name for name in names if name not in failed]
    if pool in failed or len(used) < 2:
        what = f"the repeated arm {pool}" if pool in failed else "every repeat arm"
        return RepeatFit(
            r_d_star=None, r_d_interval=None, r_n_star=None, r_n_interval=None, arms=names,
            error=None, reason=f"{what} did not pass the gate: raise train.tokens",
            left_out=left_out,
        )  # fmt: skip
    seeds = []
    for place, seed in enumerate(study.seeds):
        parts = [_points(records[name][place], arms[seed][name]) for name in used]
        seeds.append(Points(*(np.concatenate(column) for column in zip(*parts, strict=True))))
    return msgspec.structs.replace(fit_repeats(seeds, used, study.level), left_out=left_out)


def _points(run: RunRecord, arm: Arm) -> Points:
    """Return the points of a run before its decay, and the last one."""
    curve = curve_points(run)
    last = np.arange(len(curve.tokens)) == len(curve.tokens) - 1
    used = (curve.tokens <= decay_start(run)) | last
    unique = np.full(int(used.sum()), float(arm.tokens))
    return Points(curve.tokens[used], unique, curve.bpb[used], last[used] & (run.config.decay > 0))


def signal_table(
    catalogue: Catalogue,
    arms: Arms,
    records: Records,
    study: StudyConfig,
    failed: Collection[str] = (),
) -> list[SignalRank]:
    """Correlate the mean of every number column with the measured worth of the arms.

    `failed` arms are left out: see `by_content`.
    """
    names = by_content(study, failed)
    weights = {
        name: np.mean([arms[seed][name].copies for seed in study.seeds], axis=0) * catalogue.bytes
        for name in names
    }
    means = {}
    for column in catalogue.numbers():
        values = catalogue.column(column)
        if column in _NO_SIGNAL or values is None:
            continue
        known = np.isfinite(values)
        sums = [float(weights[name][known].sum()) for name in names]
        if all(sums):
            means[column] = np.array(
                [
                    float(weights[name][known] @ values[known]) / total
                    for name, total in zip(names, sums, strict=True)
                ]
            )
    return signal_ranks(means, _bpb(names, records))


def worth_of_cells(
    catalogue: Catalogue,
    results: dict[str, ArmResult],
    records: Records,
    study: StudyConfig,
    failed: Collection[str] = (),
) -> WorthModel | None:
    """Fit worth to the shares of all cells that some arm holds; not to `failed` arms."""
    names = by_content(study, failed)
    control = catalogue.select(study.arms[study.control], "study.control")
    cell, known = catalogue.cells(study.cells, control)
    mine = control & (cell >= 0)
    tokens = np.bincount(cell[mine], catalogue.lengths[mine], minlength=len(known))
    sizes = np.bincount(cell[mine], catalogue.bytes[mine], minlength=len(known))
    present = [
        (name, int(tokens[i]), int(sizes[i]))
        for i, name in enumerate(known)
        if any(results[arm].shares.get(name) for arm in names)
    ]
    shares = np.array(
        [[results[arm].shares.get(name, 0.0) for name, _, _ in present] for arm in names]
    )
    return worth_model(names, present, shares, _bpb(names, records))


def _bpb(names: list[str], records: Records) -> Floats:
    """Return float64[A, S]."""
    return np.array([[run.bpb for run in records[name]] for name in names])
