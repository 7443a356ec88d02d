"""Records of studies that nobody trained, with the numbers that a test needs."""

from typing import Any

from trainer.config import TrainConfig
from trainer.records import (
    ArmResult,
    Baselines,
    CurvePoint,
    RunRecord,
    SeedResult,
    StudyRecord,
    ValidResult,
)
from trainer.study_config import StudyConfig

CURVE = ((100_000, 2.6), (200_000, 2.4), (400_000, 2.2))


def run_record(
    *,
    seed: int = 1,
    bpb: float = 2.2,
    baselines: Baselines | None = None,
    curve: Any = CURVE,
) -> RunRecord:
    tokens = curve[-1][0]
    return RunRecord(
        run_key="k", dataset_id="d", select="True", selection_hash="s", valid_hash="v", seed=seed,
        config=TrainConfig(decay=0.0), definitions={}, device="cpu", parameters=1000,
        flops_per_token=6000, steps=10, tokens=tokens, unique_tokens=tokens,
        available_tokens=2 * tokens, epochs=0.5, bpb=bpb, by_source={"one": bpb},
        curve=[CurvePoint(i, t, 1.0, b) for i, (t, b) in enumerate(curve)], curve_documents=2,
        baselines=baselines or Baselines(3.0, 2.5), valid_sha256="", checkpoint_sha256="",
        facts={"tokens_per_s": 1000.0},
    )  # fmt: skip


def arm_result(
    runs: list[RunRecord], *, baselines_all: Baselines | None = None, **answers: Any
) -> ArmResult:
    return ArmResult(
        select=runs[0].select, documents=10, available_tokens=runs[0].available_tokens,
        tokens=runs[0].tokens, unique_tokens=runs[0].unique_tokens, epochs=runs[0].epochs,
        bpb=runs[0].bpb, by_source=runs[0].by_source, baselines=runs[0].baselines,
        baselines_all=baselines_all or runs[0].baselines,
        beats_baselines=all(run.beats_baselines for run in runs),
        seeds=[
            SeedResult(
                seed=run.seed, run=f"x-{run.seed}", bpb=run.bpb, by_source=run.by_source,
                baselines=run.baselines, beats_baselines=run.beats_baselines,
                unique_tokens=run.unique_tokens, tokens_per_s=1000.0, curve=run.curve,
            )
            for run in runs
        ],
        **answers,
    )  # fmt: skip


def study_record(deltas: dict[str, tuple[float, float, float, str]], **changes: Any) -> StudyRecord:
    """Make a study of a control `raw` and of arms with (delta, low, high, verdict)."""
    runs = [run_record(seed=seed) for seed in (1, 2)]
    arms = {"raw": arm_result(runs)} | {
        name: arm_result(
            runs, delta=delta, ci_low=low, ci_high=high, verdict=verdict, level=0.025,
            p_value=0.01, effective_data_multiplier=1.25, multiplier_ci=(1.1, 1.4),
            tokens_to_target=320_000.0, area=2.4,
        )
        for name, (delta, low, high, verdict) in deltas.items()
    }  # fmt: skip
    settings: dict[str, Any] = {
        "dataset_id": "d", "study": StudyConfig(arms=dict.fromkeys(arms, "True"), seeds=[1, 2]),
        "train": TrainConfig(), "parameters": 1000, "flops": 2_400_000_000, "tokens": 400_000,
        "valid": ValidResult(
            select="split == 'valid'", documents=5, curve_documents=2, tokens=100, bytes=300,
            zstd_bpb=2.9,
        ),
        "arms": arms, "control": "raw", "gate_passed": True, "gate": "all runs beat the models",
        "verdict": "conclusive", "sentence": "curated is better than raw.",
        "detectable_difference": 0.02,
    }  # fmt: skip
    return StudyRecord(**settings | changes)
