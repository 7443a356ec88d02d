"""Learning rate and weight decay, tuned on the control arm alone, before any arm is compared.

Tuning each arm would need its own seeds and a correction for picking the best; tuning on the
control alone can only favour the control, so a difference in favour of another arm stands.
"""

import itertools
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from shards.dataset import TokenView
from trainer.config import TrainConfig
from trainer.data import Documents
from trainer.loop import recalled, run_key, train
from trainer.parallel import Job
from trainer.progress import Reporter
from trainer.records import RunRecord
from trainer.study_config import StudyConfig, Sweep
from trainer.study_records import SweepPoint, SweepResult

TUNED = ("learning_rate", "embedding_learning_rate", "weight_decay")


class SweepRun(NamedTuple):
    """One run of a sweep: which point of the grid, with its settings and seed."""

    name: str
    point: int
    config: TrainConfig


def grid(sweep: Sweep, config: TrainConfig) -> list[TrainConfig]:
    """Return the settings to try, in the order of the recipe."""
    rates = sweep.learning_rates or [config.learning_rate]
    decays = sweep.weight_decays or [config.weight_decay]
    ratio = config.embedding_learning_rate / config.learning_rate
    return [
        msgspec.structs.replace(
            config, learning_rate=rate, embedding_learning_rate=ratio * rate, weight_decay=decay
        )
        for rate, decay in itertools.product(rates, decays)
    ]


def sweep_runs(sweep: Sweep, config: TrainConfig) -> list[SweepRun]:
    """Return all runs of a sweep."""
    return [
        SweepRun(f"sweep{point + 1:02}-{seed}", point, msgspec.structs.replace(tried, seed=seed))
        for point, tried in enumerate(grid(sweep, config))
        for seed in sweep.seeds
    ]


def sweep_jobs(
    views: dict[int, TokenView],
    valid: Documents,
    study: StudyConfig,
    config: TrainConfig,
    out: Path,
    command: tuple[str, ...],
) -> list[Job]:
    """Return the runs of the sweep that are not finished, as processes to start.

    Runs that `assay train` put aside for others are brought back first.

    Args:
        views: the control arm for each seed of the sweep.
        valid: the validation documents.
        study, config, out: of the study.
        command: arguments of `assay train` up to the options of one run.
    """
    found = []
    for run in sweep_runs(study.sweep, config) if study.sweep else []:
        folder, seed = out / run.name, run.config.seed
        if recalled(folder, run_key(views[seed], valid, run.config), run.config) is None:
            own = (f"--arm={study.control}", f"--seed={seed}", f"--out={folder}", "--quiet")
            arguments = (*command, *settings(run.config), *own)
            found.append(Job(run.name, arguments, folder, run.config))
    return found


def settings(config: TrainConfig) -> tuple[str, ...]:
    """Return what was tuned, as options of a command."""
    return tuple(f"--set=train.{key}={getattr(config, key)!r}" for key in TUNED)


def run_sweep(
    views: dict[int, TokenView],
    valid: Documents,
    sweep: Sweep,
    config: TrainConfig,
    out: Path,
    reporter: Reporter,
) -> tuple[TrainConfig, SweepResult]:
    """Make the runs that are not done; return the settings for all arms, and the record.

    Raises:
        TrainingError, CorruptError, KeyboardInterrupt: from a run (see `trainer.loop.train`).
    """
    tried = grid(sweep, config)
    records: list[list[RunRecord]] = [[] for _ in tried]
    names: list[list[str]] = [[] for _ in tried]
    for run in sweep_runs(sweep, config):
        view = views[run.config.seed]
        records[run.point].append(
            train(view, valid, run.config, out / run.name, reporter, run.name)
        )
        names[run.point].append(run.name)
    points = [
        SweepPoint(
            learning_rate=each.learning_rate,
            embedding_learning_rate=each.embedding_learning_rate,
            weight_decay=each.weight_decay,
            bpb=float(np.mean([record.bpb for record in runs])),
            runs=own,
        )
        for each, runs, own in zip(tried, records, names, strict=True)
    ]
    chosen = int(np.argmin([point.bpb for point in points]))
    best = points[chosen]
    edges = [
        key
        for key, values in (
            ("learning_rate", sweep.learning_rates),
            ("weight_decay", sweep.weight_decays),
        )
        if len(values) > 1 and getattr(best, key) in {min(values), max(values)}
    ]
    return tried[chosen], SweepResult(points=points, chosen=chosen, at_edge=edges)
