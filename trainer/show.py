"""What the commands print: the size of a run, its result, a study's table (imports no torch)."""

from typing import Any

from rich import box
from rich.table import Table

from trainer.config import TrainConfig
from trainer.records import RunRecord, StudyRecord


def quantity(value: float) -> str:
    """Write a count with three digits and a unit: 1234567 → '1.23M'."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}E"


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


_COLUMNS = ("arm", "bpb", "bigram", "of all", "− control", "interval", "verdict")
"""`bigram` read what the runs read, `of all` the whole arm: what is left to learn from it."""


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
        compared = arm.delta is not None
        table.add_row(
            name,
            f"{arm.bpb:.4f}",
            f"{arm.baselines.bigram:.4f}",
            f"{arm.baselines_all.bigram:.4f}",
            f"{arm.delta:+.4f}" if compared else "",
            f"{arm.ci_low:+.3f} to {arm.ci_high:+.3f}" if compared else "",
            arm.verdict,
        )
    return table


def study_summary(record: StudyRecord) -> dict[str, Any]:
    """Return the plain data that `--json` prints."""
    return {
        "dataset_id": record.dataset_id,
        "verdict": record.verdict,
        "sentence": record.sentence,
        "gate_passed": record.gate_passed,
        "control": record.control,
        "tokens": record.tokens,
        "flops": record.flops,
        "zstd_bpb": record.valid.zstd_bpb,
        "arms": {
            name: {
                "bpb": arm.bpb,
                "delta": arm.delta,
                "ci_low": arm.ci_low,
                "ci_high": arm.ci_high,
                "verdict": arm.verdict,
                "epochs": arm.epochs,
                "unigram": arm.baselines.unigram,
                "bigram": arm.baselines.bigram,
            }
            for name, arm in record.arms.items()
        },
    }
