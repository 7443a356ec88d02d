"""What the commands print: the size of a run, its result, a study's table (imports no torch)."""

from typing import Any

import msgspec
from rich import box
from rich.table import Table

from trainer.config import TrainConfig
from trainer.records import ArmResult, RunRecord, StudyRecord
from trainer.study_controls import without_random
from trainer.study_curves import Multiplier, value_words


def quantity(value: float) -> str:
    """Write a count with three digits and a unit: 1234567 → '1.23M'."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}E"


def signed(value: float, decimals: int = 4) -> str:
    """Write a difference with its sign, a true minus."""
    return f"{value:+.{decimals}f}".replace("-", "−")


def coverage(arm: ArmResult) -> str:
    """Write the coverage of an arm's intervals: level 0.025 → '97.5 %'; 95 % in older records."""
    return f"{100 * (1 - (0.05 if arm.level is None else arm.level)):.4g} %"


def size_line(
    config: TrainConfig, parameters: int, flops_per_token: int, memory: int, runs: int = 1
) -> str:
    """Describe a run before it is made."""
    tokens = config.total_steps * config.batch_tokens
    several = f"{runs} runs, each of " if runs > 1 else ""
    return (
        f"{several}{quantity(parameters)} parameters, {config.total_steps} steps of"
        f" {config.batch_tokens} tokens = {quantity(tokens)} tokens,"
        f" {quantity(flops_per_token * tokens)}FLOP, about {memory / 2**20:.0f} MiB of memory"
    )


def run_line(record: RunRecord) -> str:
    """Describe a finished run."""
    verdict = "beats" if record.beats_baselines else "does NOT beat"
    return (
        f"{record.bpb:.4f} bits per byte after {quantity(record.tokens)} tokens"
        f" ({record.epochs:.2f} epochs, {record.facts['tokens_per_s']:,.0f} tokens/s); {verdict}"
        f" unigram {record.baselines.unigram:.4f} and bigram {record.baselines.bigram:.4f}"
    )


_COLUMNS = ("arm", "bpb", "bigram", "delta", "interval", "verdict", "worth")
"""`bigram` read what the runs read, `delta` is arm − control, `worth` the effective-data
multiplier: what fits into 80 characters. `assay study show --markdown` shows the rest."""

SHORT = {"arm better": "better", "arm worse": "worse", "no difference seen": "none seen"}


def study_table(record: StudyRecord) -> Table:
    """Return the table of a study's arms."""
    table = Table(
        title=f"{quantity(record.tokens)} tokens a run; bits per byte, lower is better",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for heading in _COLUMNS:
        is_text = heading in {"arm", "verdict"}
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=True)
    for name, arm in record.arms.items():
        table.add_row(
            name,
            f"{arm.bpb:.4f}",
            f"{arm.baselines.bigram:.4f}",
            signed(arm.delta) if arm.delta is not None else "",
            _interval(arm),
            SHORT.get(arm.verdict, arm.verdict),
            value_words(multiplier_of(arm)).replace("unknown", ""),
        )
    return table


def multiplier_of(arm: ArmResult) -> Multiplier:
    """Return an arm's effective-data multiplier; its ends are None where there is no interval."""
    return Multiplier(
        arm.effective_data_multiplier,
        arm.multiplier_ci or (None, None),
        arm.multiplier_reach,
        arm.multiplier_beyond,
    )


def _interval(arm: ArmResult) -> str:
    if arm.ci_low is None or arm.ci_high is None:
        return ""
    return f"{signed(arm.ci_low, 3)} to {signed(arm.ci_high, 3)}"


def study_summary(record: StudyRecord) -> dict[str, Any]:
    """Return the plain data that `--json` prints; `baselines` are those of the control.

    `without_random`: arms smaller than the control with no random subset of equal size beside them.
    """
    return {
        "dataset_id": record.dataset_id,
        "verdict": record.verdict,
        "sentence": record.sentence,
        "gate_passed": record.gate_passed,
        "control": record.control,
        "without_random": without_random(record.arms, record.study),
        "tokens": record.tokens,
        "flops": record.flops,
        "zstd_bpb": record.valid.zstd_bpb,
        "baselines": msgspec.to_builtins(record.arms[record.control].baselines)
        | {"zstd": record.valid.zstd_bpb},
        "tokens_needed": record.tokens_needed,
        "detectable_difference": record.detectable_difference,
        "prediction": msgspec.to_builtins(record.prediction),
        "repeats": msgspec.to_builtins(record.repeats),
        "sweep": msgspec.to_builtins(record.sweep),
        "overlap": msgspec.to_builtins(record.valid.overlap),
        "contrasts": msgspec.to_builtins(record.contrasts),
        "signals": msgspec.to_builtins(record.signals),
        "arms": {
            name: {
                "bpb": arm.bpb,
                "delta": arm.delta,
                "ci_low": arm.ci_low,
                "ci_high": arm.ci_high,
                "verdict": arm.verdict,
                "level": arm.level,
                "p_value": arm.p_value,
                "effective_data_multiplier": arm.effective_data_multiplier,
                "multiplier_ci": arm.multiplier_ci,
                "multiplier_reach": arm.multiplier_reach,
                "multiplier_beyond": arm.multiplier_beyond,
                "random_delta": arm.random_delta,
                "random_ci": arm.random_ci,
                "tokens_to_target": arm.tokens_to_target,
                "area": arm.area,
                "by_source": arm.by_source,
                "sources": msgspec.to_builtins(arm.sources),
                "prequential": msgspec.to_builtins(arm.prequential),
                "documents": arm.documents,
                "unique_tokens": arm.unique_tokens,
                "epochs": arm.epochs,
                "beats_baselines": arm.beats_baselines,
                "unigram": arm.baselines.unigram,
                "bigram": arm.baselines.bigram,
                "bigram_all": arm.baselines_all.bigram,
            }
            for name, arm in record.arms.items()
        },
    }
