"""A study: the same model trained on several selections of one dataset, and which was best.

Arms share seeds, so that run for run the initial weights and the order law are the same, and all
train on the same number of tokens: equal FLOPs. Runs go seed by seed through all arms, so that a
study that is stopped has complete pairs, and finished runs are skipped.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from shards.atomic import write_atomic
from shards.config import did_you_mean
from shards.console import console
from shards.dataset import TokenDataset, TokenView
from shards.errors import RecipeError, TrainingError
from trainer.config import TrainConfig
from trainer.data import Documents, overlap, read_documents
from trainer.loop import recalled, run_key, train
from trainer.parallel import Job
from trainer.progress import Reporter
from trainer.records import STUDY, STUDY_TEXT, RunRecord, StudyRecord, write_record
from trainer.study_arms import RANDOM, Arm, Arms, open_arms, with_random
from trainer.study_catalogue import Catalogue
from trainer.study_config import StudyConfig
from trainer.study_overlap import decontaminate
from trainer.study_records import OverlapResult, SweepResult
from trainer.study_replace import make_way
from trainer.study_report import study_markdown
from trainer.study_result import Runs, compare
from trainer.study_sweep import run_sweep, sweep_jobs


@dataclass(frozen=True)
class StudyData:
    """What a study reads: an arm for each seed and name, and the validation documents.

    `study` has its `random_like` decided (`with_random`); `sweep` has the control arm for each seed
    of the sweep; `overlap` says what was taken out of the validation.
    """

    study: StudyConfig
    dataset: TokenDataset
    by_seed: Arms
    valid: Documents
    overlap: OverlapResult
    sweep: dict[int, Arm]

    @property
    def arms(self) -> dict[str, TokenView]:
        """The views of all arms under the first seed."""
        return {name: arm.view for name, arm in next(iter(self.by_seed.values())).items()}

    @property
    def sweep_views(self) -> dict[int, TokenView]:
        """The control's view for each seed of the sweep."""
        return {seed: arm.view for seed, arm in self.sweep.items()}


def open_study(dataset: TokenDataset, study: StudyConfig, train_config: TrainConfig) -> StudyData:
    """Select the documents of every arm and of the validation.

    Raises:
        RecipeError: an arm shares documents with the validation, a selection is not one or is
            empty, or an arm is too small for a draw from it; the message names the arm.
        TrainingError: the validation has fewer than two documents, so it says nothing of others.
    """
    _check_settings(study, train_config)
    valid = _read_valid(dataset, study, train_config)
    study = with_random(dataset, study, _budget(train_config))
    arms = open_arms(dataset, study, _budget(train_config))
    for name, select in study.arms.items():
        check_apart(dataset, select, study.valid, f"study.arms.{name}")
    seeds = study.sweep.seeds if study.sweep else []
    tried = open_arms(dataset, study, _budget(train_config), seeds) if seeds else {}
    swept = {seed: opened[study.control] for seed, opened in tried.items()}
    clean, evidence = decontaminate(dataset, study, valid)
    return StudyData(study, dataset, arms, clean, evidence, swept)


def open_arm(
    dataset: TokenDataset, study: StudyConfig, train_config: TrainConfig, name: str
) -> TokenView:
    """Select the documents of one arm for `train_config.seed`, for a run in a process of its own.

    Raises:
        RecipeError: as `open_study`, or the study has no such arm.
    """
    if name not in study.arm_names and name.startswith(RANDOM):
        study = with_random(dataset, study, _budget(train_config))
    if name not in study.arm_names:
        known = did_you_mean(name, tuple(study.arm_names), "arms")
        raise RecipeError(f"arm {name!r}: not one of the study's{known}")
    if study.budget == "flops" and name in study.arms:  # then the others have no say in it
        check_apart(dataset, study.arms[name], study.valid, f"study.arms.{name}")
        return dataset.select(study.arms[name])
    if name not in study.arms:
        _check_settings(study, train_config)
    seed = train_config.seed
    opened = open_arms(dataset, study, _budget(train_config), [seed])[seed][name]
    for arm, select in study.arms.items():
        check_apart(dataset, select, study.valid, f"study.arms.{arm}")
    return opened.view


def open_valid(dataset: TokenDataset, study: StudyConfig, train_config: TrainConfig) -> Documents:
    """Return the study's validation documents, without those that arms may read.

    Raises:
        RecipeError: a selection is not one, or the validation's is empty.
        TrainingError: fewer than two documents are left.
    """
    valid = _read_valid(dataset, study, train_config)
    if study.max_overlap == 1:  # none can have more, so what the arms hold need not be read
        return valid
    return decontaminate(dataset, study, valid)[0]


def _check_settings(study: StudyConfig, train_config: TrainConfig) -> None:
    """Refuse settings of a run under which an arm would not be what it says.

    Raises:
        RecipeError: names the two.
    """
    if train_config.mixture and (study.mixtures or study.probes):
        key = "mixtures" if study.mixtures else "probes"
        raise RecipeError(
            f"study.{key} with train.mixture: a source of a run has each document of its arm once,"
            " so what such an arm repeats would be lost; leave one of the two out"
        )
    if study.curricula and (train_config.packing != "none" or train_config.mixture):
        key = "mixture" if train_config.mixture else "packing"
        raise RecipeError(
            f"study.curricula with train.{key}: both decide in which order documents come; leave"
            " one of the two out"
        )


def _budget(config: TrainConfig) -> int:
    return config.total_steps * config.batch_tokens


def _read_valid(dataset: TokenDataset, study: StudyConfig, train_config: TrainConfig) -> Documents:
    try:
        found = dataset.select(study.valid).documents
    except RecipeError as error:
        raise RecipeError(f"study.valid: {error}") from None
    if not found:
        raise RecipeError(
            f"study.valid = {study.valid!r} selects no document of {dataset.folder}; with"
            " split.valid_fraction = 0 (its default) none is held out: curate with 0.03, say"
        )
    valid = read_documents(dataset, study.valid, train_config.eval_tokens)
    if len(valid) < 2:
        raise TrainingError(
            f"study.valid = {study.valid!r}: 1 of {found} documents fits into train.eval_tokens ="
            f" {train_config.eval_tokens}, and an interval needs at least 2; raise it, or"
            " split.valid_fraction"
        )
    return valid


def check_apart(dataset: TokenDataset, select: str, valid: str, what: str) -> None:
    """Refuse a selection that shares documents with the validation.

    Raises:
        RecipeError: it does.
    """
    shared = overlap(dataset, select, valid)
    if shared:
        raise RecipeError(
            f"{what} = {select!r} shares {shared} documents with study.valid = {valid!r}: a model"
            " must not be tested on what it was trained on; add split == 'train' to the arm"
        )


def tune(
    data: StudyData, study: StudyConfig, train_config: TrainConfig, out: Path, reporter: Reporter
) -> tuple[TrainConfig, SweepResult | None]:
    """Make the runs of the sweep that are not done; return the settings that all arms use.

    Raises:
        TrainingError, CorruptError, KeyboardInterrupt: from a run (see `trainer.loop.train`).
    """
    if study.sweep is None:
        return train_config, None
    todo = sweep_jobs(data.sweep_views, data.valid, study, train_config, out, ())
    warn_of_replaced(data, todo, out)
    return run_sweep(data.sweep_views, data.valid, study.sweep, train_config, out, reporter)


def run_study(
    data: StudyData, study: StudyConfig, train_config: TrainConfig, out: Path, reporter: Reporter
) -> StudyRecord:
    """Run what is not done yet, compare, and write `study.json` and `study.md`.

    Raises:
        TrainingError, CorruptError, KeyboardInterrupt: from a run (see `trainer.loop.train`).
    """
    tuned, swept = tune(data, study, train_config, out, reporter)
    warn_of_replaced(data, open_runs(data, study, tuned, out, ()), out)
    records: dict[str, list[RunRecord]] = {name: [] for name in study.arm_names}
    for seed, arms in data.by_seed.items():
        config = msgspec.structs.replace(tuned, seed=seed)
        for name, arm in arms.items():
            folder = out / run_name(name, seed)
            run = train(arm.view, data.valid, config, folder, reporter, folder.name)
            records[name].append(run)
    folders = {name: [out / run_name(name, s) for s in study.seeds] for name in study.arm_names}
    runs = Runs(Catalogue(data.dataset), data.by_seed, data.valid, records, folders)
    record = compare(runs, study, tuned, data.overlap, swept)
    write_record(out / STUDY, record)
    write_atomic(out / STUDY_TEXT, study_markdown(record).encode())
    return record


def warn_of_replaced(data: StudyData, todo: list[Job], out: Path) -> None:
    """Say which finished runs of another study `todo` will replace: see `make_way`."""
    said = make_way(todo, data.valid.digest(), data.dataset.dataset_id, out)
    if said:
        console.print(said, soft_wrap=True, highlight=False, markup=False)


def open_runs(
    data: StudyData,
    study: StudyConfig,
    train_config: TrainConfig,
    out: Path,
    command: tuple[str, ...],
) -> list[Job]:
    """Return the runs that are not finished, pair by pair, as processes to start.

    Runs that `assay train` put aside for others are brought back first.
    """
    found = []
    for seed, arms in data.by_seed.items():
        config = msgspec.structs.replace(train_config, seed=seed)
        for name, arm in arms.items():
            folder = out / run_name(name, seed)
            if recalled(folder, run_key(arm.view, data.valid, config), config) is None:
                own = (f"--arm={name}", f"--seed={seed}", f"--out={folder}", "--quiet")
                found.append(Job(folder.name, (*command, *own), folder, config))
    return found


def run_name(arm: str, seed: int) -> str:
    """Return the folder of a run inside its study."""
    return f"{arm}-{seed}"
