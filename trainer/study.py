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

from shards.dataset import TokenDataset, TokenView
from shards.errors import RecipeError
from trainer.baselines import fit_and_score, zstd_bpb
from trainer.config import StudyConfig, TrainConfig
from trainer.data import Documents, overlap, read_documents
from trainer.loop import finished, run_key, train
from trainer.parallel import Job
from trainer.progress import Reporter
from trainer.records import (
    STUDY,
    ArmResult,
    Baselines,
    RunRecord,
    SeedResult,
    StudyRecord,
    ValidResult,
    read_valid,
    write_record,
)
from trainer.stats import paired_difference, verdict_of


@dataclass(frozen=True)
class StudyData:
    """What a study reads: one view per arm, and the validation documents."""

    dataset: TokenDataset
    arms: dict[str, TokenView]
    valid: Documents


def open_study(dataset: TokenDataset, study: StudyConfig, train_config: TrainConfig) -> StudyData:
    """Select the documents of every arm and of the validation.

    Raises:
        RecipeError: an arm shares documents with the validation, or a selection is not one.
        TrainingError: the validation has no document.
    """
    for name, select in study.arms.items():
        check_apart(dataset, select, study.valid, f"study.arms.{name}")
    arms = {name: dataset.select(select) for name, select in study.arms.items()}
    return StudyData(dataset, arms, read_documents(dataset, study.valid, train_config.eval_tokens))


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
    """Run what is not done yet, compare, and write `study.json`.

    Raises:
        TrainingError, CorruptError, KeyboardInterrupt: from a run (see `trainer.loop.train`).
    """
    runs: dict[str, list[RunRecord]] = {name: [] for name in study.arms}
    for seed in study.seeds:
        config = msgspec.structs.replace(train_config, seed=seed)
        for name, view in data.arms.items():
            folder = out / run_name(name, seed)
            runs[name].append(train(view, data.valid, config, folder, reporter, folder.name))
    record = compare(data, study, train_config, out, runs)
    write_record(out / STUDY, record)
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
    failed = [
        run_name(name, run.seed)
        for name, records in runs.items()
        for run in records
        if not run.beats_baselines
    ]
    arms = {name: _arm(data, name, records) for name, records in runs.items()}
    bits = {name: _bits(out, name, records) for name, records in runs.items()}
    for name, arm in arms.items():
        if name == study.control:
            continue
        difference = paired_difference(
            bits[name], bits[study.control], data.valid.bytes, study.level, study.bootstrap_samples
        )
        arms[name] = msgspec.structs.replace(
            arm,
            delta=difference.delta,
            ci_low=difference.both.low,
            ci_high=difference.both.high,
            seed_ci=tuple(difference.seeds),
            document_ci=tuple(difference.documents),
            verdict=verdict_of(difference.both, gate_passed=not failed),
        )
    gate = _gate_sentence(failed, sum(map(len, runs.values())))
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
        gate_passed=not failed,
        gate=gate,
        verdict="INCONCLUSIVE" if failed else "conclusive",
        sentence=f"INCONCLUSIVE: {gate}" if failed else _sentence(arms, study),
    )


def _arm(data: StudyData, name: str, runs: list[RunRecord]) -> ArmResult:
    """Summarise the runs of an arm, without the comparison."""
    view, vocabulary = data.arms[name], data.dataset.vocab_size
    everything = read_documents(data.dataset, view.expression)
    return ArmResult(
        select=view.expression,
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
        baselines_all=fit_and_score(
            everything.previous(), everything.tokens, data.valid, vocabulary
        ),
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


def _gate_sentence(failed: list[str], runs: int) -> str:
    if failed:
        return (
            f"{len(failed)} of {runs} runs did not beat the unigram and bigram models of what they"
            f" read ({', '.join(failed)}): the models are too little trained to judge data; raise"
            " train.tokens"
        )
    return f"all {runs} runs beat the unigram and bigram models of what they read"


def _sentence(arms: dict[str, ArmResult], study: StudyConfig) -> str:
    """Say in plain words what the intervals show."""
    coverage = f"{100 * (1 - study.level):g} %"
    parts = []
    for name, arm in arms.items():
        if arm.delta is None or arm.ci_low is None or arm.ci_high is None:
            continue
        numbers = (
            f"{_signed(arm.delta)} bits per byte"
            f" ({coverage} interval {_signed(arm.ci_low)} to {_signed(arm.ci_high)})"
        )
        if arm.verdict == "no difference seen":
            parts.append(f"no difference seen between {name} and {study.control}: {numbers}")
        else:
            better = "better" if arm.verdict == "arm better" else "worse"
            share = f"{100 * abs(arm.delta) / arms[study.control].bpb:.1f} %"
            fewer = "fewer" if arm.delta < 0 else "more"
            parts.append(
                f"{name} is {better} than {study.control}: {numbers}, {share} {fewer} bits"
            )
    return f"With {len(study.seeds)} seeds, " + "; ".join(parts) + "."


def _signed(value: float) -> str:
    """Write a difference with its sign, a true minus."""
    return f"{value:+.4f}".replace("-", "−")
