"""From finished runs to the record of a study: arms, differences, curves, worth, and a sentence."""

import math
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from shards.errors import CorruptError
from trainer.baselines import fit_and_score, zstd_bpb
from trainer.config import TrainConfig
from trainer.data import Documents
from trainer.records import (
    RUN,
    VALID,
    ArmResult,
    Baselines,
    RunRecord,
    SeedResult,
    StudyRecord,
    ValidResult,
    read_valid,
)
from trainer.stats import (
    Difference,
    Floats,
    Interval,
    paired_differences,
    source_differences,
    verdict_of,
)
from trainer.study_arms import Arm, Arms, draw_words
from trainer.study_catalogue import Catalogue
from trainer.study_config import StudyConfig
from trainer.study_contrasts import compare_contrasts
from trainer.study_curves import (
    Measured,
    Multiplier,
    area,
    effective_data,
    mean_curve,
    tokens_to_target,
)
from trainer.study_extras import (
    compare_prequential,
    repeat_fit,
    signal_table,
    text_ladder,
    worth_of_cells,
)
from trainer.study_gate import (
    anchored_curve,
    decay_start,
    gate_need,
    gate_sentence,
    judged_arms,
)
from trainer.study_power import planned_difference
from trainer.study_records import OverlapResult, SourceResult, SweepResult
from trainer.study_report import answer_sentence
from trainer.study_told import predicted


@dataclass(frozen=True)
class Runs:
    """The finished runs of a study: what they read, their records and folders by arm and seed."""

    catalogue: Catalogue
    arms: Arms
    valid: Documents
    records: dict[str, list[RunRecord]]
    folders: dict[str, list[Path]]

    def bits(self, name: str) -> Floats:
        """Return bits `float64[S, D]` of the validation documents by seed.

        Raises:
            CorruptError: a file of scores does not match the hash, or the bits per byte, in its
                record.
        """
        pairs = zip(self.folders[name], self.records[name], strict=True)
        return np.stack([_scores(folder, run) for folder, run in pairs])


def _scores(folder: Path, run: RunRecord) -> Floats:
    """Read a run's bits by document: gate and curves go by `run.bpb`, differences by these."""
    bits, sizes = read_valid(folder, run.valid_sha256)
    scored = float(bits.sum() / sizes.sum())
    if not math.isclose(scored, run.bpb, rel_tol=1e-9):
        raise CorruptError(
            f"{folder / RUN}: bpb = {run.bpb!r}, but the scores in {VALID} give {scored!r};"
            f" remove {folder} to run it again"
        )
    return bits


def compare(
    runs: Runs,
    study: StudyConfig,
    config: TrainConfig,
    overlap: OverlapResult,
    sweep: SweepResult | None,
) -> StudyRecord:
    """Turn finished runs into the record of the study."""
    valid = runs.valid
    bits = {name: runs.bits(name) for name in study.arm_names}
    control = bits[study.control]
    others = {name: found for name, found in bits.items() if name != study.control}
    differences = paired_differences(
        others, control, valid.bytes, study.level, study.bootstrap_samples
    )
    draws = draw_words(study)
    arms = {name: _arm(runs, name, draws[name]) for name in study.arm_names}
    judged = judged_arms(arms, study.control)
    by_source = _source_differences(others, control, valid, study)
    for name, difference in differences.items():
        arm = _with_difference(arms[name], difference, gate_passed=name in judged)
        arms[name] = msgspec.structs.replace(arm, sources=by_source[name])
    arms = {name: _with_curves(arm, runs, name, study) for name, arm in arms.items()}
    for name in study.random_subsets:
        arms[name] = _with_random(arms[name], bits[name], bits[f"random-{name}"], valid, study)
    arms = compare_prequential(arms, runs.arms, runs.records, runs.folders, study)
    passed = bool(judged)
    contrasts = compare_contrasts(study, bits, valid.bytes, judged)
    lost = [name for name, arm in arms.items() if not arm.beats_baselines]
    need = gate_need(arms, runs.records) if lost else None
    left_out = lost if passed else []  # of a study that failed all is shown, as no evidence
    gate = gate_sentence(arms, study.control, need)
    first = runs.records[study.control][0]
    catalogue = runs.catalogue
    dataset_id = catalogue.dataset.dataset_id
    tested = ValidResult(
        select=study.valid,
        documents=len(valid),
        curve_documents=first.curve_documents,
        tokens=len(valid.tokens),
        bytes=int(valid.bytes.sum()),
        zstd_bpb=zstd_bpb(valid),
        overlap=overlap,
    )
    return StudyRecord(
        dataset_id=dataset_id,
        study=study,
        train=config,
        parameters=first.parameters,
        flops=first.flops_per_token * first.tokens,
        tokens=first.tokens,
        valid=tested,
        arms=arms,
        control=study.control,
        gate_passed=passed,
        gate=gate,
        verdict="conclusive" if passed else "INCONCLUSIVE",
        sentence=answer_sentence(arms, study, contrasts) if passed else f"INCONCLUSIVE: {gate}",
        tokens_needed=None if need is None else (need.low, need.high),
        detectable_difference=planned_difference(study, valid.bytes),
        sweep=sweep,
        repeats=repeat_fit(runs.arms, runs.records, study, left_out),
        signals=signal_table(catalogue, runs.arms, runs.records, study, left_out),
        worth=worth_of_cells(catalogue, arms, runs.records, study, left_out),
        prediction=predicted(study, arms, dataset_id, config, tested),
        contrasts=contrasts,
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


def _source_differences(
    arms: dict[str, Floats], control: Floats, valid: Documents, study: StudyConfig
) -> dict[str, dict[str, SourceResult]]:
    """Compare all arms on the documents of each source; the level is shared by the sources."""
    found: dict[str, dict[str, SourceResult]] = {name: {} for name in arms}
    differences = source_differences(
        arms, control, valid.bytes, valid.source, study.level, study.bootstrap_samples
    )
    for index, source in enumerate(valid.sources):
        own = valid.source == index
        count = int(own.sum())
        if not count:
            continue
        size = valid.bytes[own].sum()
        for name, bits in arms.items():
            delta = float((bits[:, own] - control[:, own]).mean(axis=0).sum() / size)
            found[name][source] = SourceResult(
                documents=count,
                delta=delta,
                interval=_bounds(differences[index][name].both) if count > 1 else None,
            )
    return found


def _bounds(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def _with_random(
    arm: ArmResult, bits: Floats, random: Floats, valid: Documents, study: StudyConfig
) -> ArmResult:
    """Add the difference from the random subset of equal size."""
    level = study.level / len(study.random_subsets)
    found = paired_differences({"arm": bits}, random, valid.bytes, level, study.bootstrap_samples)
    return msgspec.structs.replace(
        arm, random_delta=found["arm"].delta, random_ci=tuple(found["arm"].both)
    )


def _with_curves(arm: ArmResult, runs: Runs, name: str, study: StudyConfig) -> ArmResult:
    """Add what the learning curves say."""
    own = [anchored_curve(run) for run in runs.records[name]]
    others = [anchored_curve(run) for run in runs.records[study.control]]
    mean = mean_curve(own)
    worth: Multiplier | None = Multiplier(1.0, (1.0, 1.0))  # the control is worth itself
    if arm.delta is not None and arm.ci_low is not None and arm.ci_high is not None:
        found = Measured(arm.delta, arm.ci_low, arm.ci_high)
        level = study.level if arm.level is None else arm.level
        worth = effective_data(own, others, found, decay_start(runs.records[name][0]), level)
    return msgspec.structs.replace(
        arm,
        tokens_to_target=tokens_to_target(mean, float(mean_curve(others).bpb[-1])),
        effective_data_multiplier=worth and worth.value,
        multiplier_ci=worth and worth.interval,
        multiplier_reach=worth and worth.reach,
        multiplier_beyond=worth and worth.beyond,
        area=area(mean),
    )


def _arm(runs: Runs, name: str, draw: str) -> ArmResult:
    """Summarise the runs of an arm, without the comparison."""
    records = runs.records[name]
    arms = [runs.arms[run.seed][name] for run in records]
    # Draws differ from seed to seed; an arm without one is looked at once.
    different = list({arm.view.selection_hash: arm for arm in arms}.values())
    whole = [_whole(runs, arm) for arm in different]
    baselines = [found for found, _ in whole]
    unique = [min(run.unique_tokens, arm.tokens) for run, arm in zip(records, arms, strict=True)]
    return ArmResult(
        select=arms[0].view.expression,
        draw=draw,
        documents=round(np.mean([arm.documents for arm in arms])),
        available_tokens=round(np.mean([arm.tokens for arm in arms])),
        tokens=records[0].tokens,
        unique_tokens=round(np.mean(unique)),
        epochs=float(
            np.mean([run.tokens / arm.tokens for run, arm in zip(records, arms, strict=True)])
        ),
        bpb=float(np.mean([run.bpb for run in records])),
        by_source=_means([run.by_source for run in records]),
        baselines=Baselines(
            unigram=float(np.mean([run.baselines.unigram for run in records])),
            bigram=float(np.mean([run.baselines.bigram for run in records])),
        ),
        baselines_all=Baselines(
            unigram=float(np.mean([found.unigram for found in baselines])),
            bigram=float(np.mean([found.bigram for found in baselines])),
        ),
        beats_baselines=all(run.beats_baselines for run in records),
        shares=_means([arm.shares for arm in arms]),
        ladder=_means([ladder for _, ladder in whole]),
        seeds=[
            SeedResult(
                seed=run.seed,
                run=folder.name,
                bpb=run.bpb,
                by_source=run.by_source,
                baselines=run.baselines,
                beats_baselines=run.beats_baselines,
                unique_tokens=min(run.unique_tokens, arm.tokens),
                tokens_per_s=run.facts["tokens_per_s"],
                cpu_seconds=run.facts.get("cpu_seconds"),
                curve=run.curve,
            )
            for run, arm, folder in zip(records, arms, runs.folders[name], strict=True)
        ],
    )


def _whole(runs: Runs, arm: Arm) -> tuple[Baselines, dict[str, float]]:
    """Look at all tokens of an arm: what token models of them reach, and its own ladder."""
    view, dataset = arm.view, runs.catalogue.dataset
    stream = view.gather(0, view.tokens, np.empty(view.tokens, np.int64))
    # Every document ends with EOS, so the token before a document's first is EOS as well.
    previous = np.concatenate([[dataset.eos_id], stream[:-1]])
    baselines = fit_and_score(previous, stream, runs.valid, dataset.vocab_size)
    return baselines, text_ladder(stream, arm, runs.catalogue)


def _means(parts: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each key; one that a part lacks counts as 0 there."""
    keys = list(dict.fromkeys(key for part in parts for key in part))
    return {key: float(np.mean([part.get(key, 0.0) for part in parts])) for key in keys}
