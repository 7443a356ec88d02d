"""A study: the same model trained on several selections of one dataset, and which was best.

Arms share seeds, so that run for run the initial weights and the order law are the same, and all
train on the same number of tokens: equal FLOPs. Runs go seed by seed through all arms, so that a
study that is stopped has complete pairs, and finished runs are skipped.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from shards.atomic import write_atomic
from shards.config import did_you_mean
from shards.dataset import TokenDataset, TokenView
from shards.errors import RecipeError, TrainingError
from trainer.baselines import fit_and_score, zstd_bpb
from trainer.config import StudyConfig, TrainConfig
from trainer.data import Documents, overlap, read_documents
from trainer.loop import finished, run_key, train
from trainer.parallel import Job
from trainer.progress import Reporter
from trainer.records import (
    STUDY,
    STUDY_TEXT,
    ArmResult,
    Baselines,
    RunRecord,
    SeedResult,
    StudyRecord,
    ValidResult,
    read_valid,
    write_record,
)
from trainer.stats import Difference, Floats, paired_differences, verdict_of
from trainer.study_arms import draw_words, open_arms
from trainer.study_curves import area, effective_data, mean_curve, tokens_to_target
from trainer.study_gate import curve_points, gate_need, gate_sentence
from trainer.study_power import planned_difference
from trainer.study_report import answer_sentence, study_markdown


@dataclass(frozen=True)
class StudyData:
    """What a study reads: one view per arm, and the validation documents."""

    dataset: TokenDataset
    arms: dict[str, TokenView]
    valid: Documents


def open_study(dataset: TokenDataset, study: StudyConfig, train_config: TrainConfig) -> StudyData:
    """Select the documents of every arm and of the validation.

    Raises:
        RecipeError: an arm shares documents with the validation, a selection is not one or is
            empty, or an arm is too small for a draw from it; the message names the arm.
        TrainingError: the validation has fewer than two documents, so it says nothing of others.
    """
    valid = _open_valid(dataset, study, train_config)
    arms = open_arms(dataset, study, train_config.total_steps * train_config.batch_tokens)
    for name, select in study.arms.items():
        check_apart(dataset, select, study.valid, f"study.arms.{name}")
    return StudyData(dataset, arms, valid)


def open_arm(
    dataset: TokenDataset, study: StudyConfig, train_config: TrainConfig, name: str
) -> TokenView:
    """Select the documents of one arm, for a run of it in a process of its own.

    Raises:
        RecipeError: as `open_study`, or the study has no such arm.
    """
    if name not in study.arm_names:
        known = did_you_mean(name, tuple(study.arm_names), "arms")
        raise RecipeError(f"arm {name!r}: not one of the study's{known}")
    if study.budget == "flops" and name in study.arms:  # then the others have no say in it
        study = msgspec.structs.replace(
            study, arms={name: study.arms[name]}, control=name, random_like=[], repeats=[],
            repeat_of=None,
        )  # fmt: skip
    arms = open_arms(dataset, study, train_config.total_steps * train_config.batch_tokens)
    for arm, select in study.arms.items():
        check_apart(dataset, select, study.valid, f"study.arms.{arm}")
    return arms[name]


def _open_valid(dataset: TokenDataset, study: StudyConfig, train_config: TrainConfig) -> Documents:
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


def run_study(
    data: StudyData, study: StudyConfig, train_config: TrainConfig, out: Path, reporter: Reporter
) -> StudyRecord:
    """Run what is not done yet, compare, and write `study.json` and `study.md`.

    Raises:
        TrainingError, CorruptError, KeyboardInterrupt: from a run (see `trainer.loop.train`).
    """
    runs: dict[str, list[RunRecord]] = {name: [] for name in data.arms}
    for seed in study.seeds:
        config = msgspec.structs.replace(train_config, seed=seed)
        for name, view in data.arms.items():
            folder = out / run_name(name, seed)
            runs[name].append(train(view, data.valid, config, folder, reporter, folder.name))
    record = compare(data, study, train_config, out, runs)
    write_record(out / STUDY, record)
    write_atomic(out / STUDY_TEXT, study_markdown(record).encode())
    return record


def open_runs(
    data: StudyData,
    study: StudyConfig,
    train_config: TrainConfig,
    out: Path,
    command: tuple[str, ...],
) -> list[Job]:
    """Return the runs that are not finished, pair by pair, as processes to start."""
    found = []
    for seed in study.seeds:
        config = msgspec.structs.replace(train_config, seed=seed)
        for name, view in data.arms.items():
            folder = out / run_name(name, seed)
            if finished(folder, run_key(view, data.valid, config)) is None:
                own = (f"--arm={name}", f"--seed={seed}", f"--out={folder}", "--quiet")
                found.append(Job(folder.name, (*command, *own), folder, config.total_steps))
    return found


def run_name(arm: str, seed: int) -> str:
    """Return the folder of a run inside its study."""
    return f"{arm}-{seed}"


def compare(
    data: StudyData,
    study: StudyConfig,
    train_config: TrainConfig,
    out: Path,
    runs: dict[str, list[RunRecord]],
) -> StudyRecord:
    """Turn finished runs into the record of the study."""
    bits = {name: _bits(out, name, records) for name, records in runs.items()}
    control = bits.pop(study.control)
    differences = paired_differences(
        bits, control, data.valid.bytes, study.level, study.bootstrap_samples
    )
    draws = draw_words(study)
    arms = {name: _arm(data, name, records, draws[name]) for name, records in runs.items()}
    passed = all(arm.beats_baselines for arm in arms.values())
    for name, arm in arms.items():
        arms[name] = _with_curves(arm, runs[name], runs[study.control], study.level)
        if name in differences:
            arms[name] = _with_difference(arms[name], differences[name], gate_passed=passed)
    for name in study.random_like:
        arms[name] = _with_random(arms[name], bits[name], bits[f"random-{name}"], data, study)
    need = None if passed else gate_need(arms, runs)
    gate = gate_sentence(arms, need)
    first = runs[study.control][0]
    return StudyRecord(
        dataset_id=data.dataset.dataset_id,
        study=study,
        train=train_config,
        parameters=first.parameters,
        flops=first.flops_per_token * first.tokens,
        tokens=first.tokens,
        valid=ValidResult(
            select=study.valid,
            documents=len(data.valid),
            curve_documents=first.curve_documents,
            tokens=len(data.valid.tokens),
            bytes=int(data.valid.bytes.sum()),
            zstd_bpb=zstd_bpb(data.valid),
        ),
        arms=arms,
        control=study.control,
        gate_passed=passed,
        gate=gate,
        verdict="conclusive" if passed else "INCONCLUSIVE",
        sentence=answer_sentence(arms, study) if passed else f"INCONCLUSIVE: {gate}",
        tokens_needed=None if need is None else (need.low, need.high),
        detectable_difference=planned_difference(study, data.valid.bytes),
    )


def _with_difference(arm: ArmResult, found: Difference, *, gate_passed: bool) -> ArmResult:
    return msgspec.structs.replace(
        arm,
        delta=found.delta,
        ci_low=found.both.low,
        ci_high=found.both.high,
        seed_ci=tuple(found.seeds),
        document_ci=tuple(found.documents),
        level=found.level,
        p_value=found.p_value,
        verdict=verdict_of(found.both, gate_passed),
    )


def _with_random(
    arm: ArmResult, bits: Floats, random: Floats, data: StudyData, study: StudyConfig
) -> ArmResult:
    """Add the difference from the random subset of equal size."""
    level = study.level / len(study.random_like)
    found = paired_differences(
        {"arm": bits}, random, data.valid.bytes, level, study.bootstrap_samples
    )["arm"]
    return msgspec.structs.replace(arm, random_delta=found.delta, random_ci=tuple(found.both))


def _with_curves(
    arm: ArmResult, runs: list[RunRecord], control: list[RunRecord], level: float
) -> ArmResult:
    """Add what the learning curves say."""
    own, others = [curve_points(run) for run in runs], [curve_points(run) for run in control]
    mean = mean_curve(own)
    worth = effective_data(own, others, level)
    return msgspec.structs.replace(
        arm,
        tokens_to_target=tokens_to_target(mean, float(mean_curve(others).bpb[-1])),
        effective_data_multiplier=worth and worth.value,
        multiplier_ci=None if worth is None or worth.interval is None else tuple(worth.interval),
        area=area(mean),
    )


def _arm(data: StudyData, name: str, runs: list[RunRecord], draw: str) -> ArmResult:
    """Summarise the runs of an arm, without the comparison."""
    view = data.arms[name]
    stream = view.gather(0, view.tokens, np.empty(view.tokens, np.int64))
    # Every document ends with EOS, so the token before a document's first is EOS as well.
    previous = np.concatenate([[data.dataset.eos_id], stream[:-1]])
    return ArmResult(
        select=view.expression,
        draw=draw,
        documents=view.documents,
        available_tokens=view.tokens,
        tokens=runs[0].tokens,
        unique_tokens=runs[0].unique_tokens,
        epochs=runs[0].epochs,
        bpb=float(np.mean([run.bpb for run in runs])),
        by_source={
            source: float(np.mean([run.by_source[source] for run in runs]))
            for source in runs[0].by_source
        },
        baselines=Baselines(
            unigram=float(np.mean([run.baselines.unigram for run in runs])),
            bigram=float(np.mean([run.baselines.bigram for run in runs])),
        ),
        baselines_all=fit_and_score(previous, stream, data.valid, data.dataset.vocab_size),
        beats_baselines=all(run.beats_baselines for run in runs),
        seeds=[
            SeedResult(
                seed=run.seed,
                run=run_name(name, run.seed),
                bpb=run.bpb,
                by_source=run.by_source,
                baselines=run.baselines,
                beats_baselines=run.beats_baselines,
                unique_tokens=run.unique_tokens,
                tokens_per_s=run.facts["tokens_per_s"],
                curve=run.curve,
            )
            for run in runs
        ],
    )


def _bits(out: Path, name: str, runs: list[RunRecord]) -> npt.NDArray[np.float64]:
    """Return bits `float64[S, D]` of the validation documents by seed."""
    return np.stack(
        [read_valid(out / run_name(name, run.seed), run.valid_sha256)[0] for run in runs]
    )
