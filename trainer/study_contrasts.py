"""Planned contrasts: arms of a study compared with each other (light: imports no torch).

The arms' own differences are all from one control. Whether two of them differ is another question,
and no answer to it follows from their intervals: seeds and documents are paired here too.
"""

import numpy as np
from rich import box
from rich.table import Table

from trainer.show import SHORT, signed
from trainer.stats import Floats, Ints, paired_differences, verdict_of
from trainer.study_config import StudyConfig
from trainer.study_records import ContrastResult


def compare_contrasts(
    study: StudyConfig, bits: dict[str, Floats], sizes: Ints, passed: set[str]
) -> list[ContrastResult]:
    """Compare the pairs of `study.contrasts`, with Holm's procedure over all of them.

    They are a family of their own: the chance of calling any of them where there is no difference
    is at most `study.level`, and the arms' own differences pay nothing for it.

    Args:
        study: which pairs, and the level.
        bits: name → float64[S, D], bits of each validation document by seed.
        sizes: int64[D], raw bytes of each document.
        passed: arms that passed the gate, none where the control did not.
    """
    pairs = {str(place): bits[a] - bits[b] for place, (a, b) in enumerate(study.contrasts)}
    nothing = np.zeros_like(next(iter(bits.values())))
    found = paired_differences(pairs, nothing, sizes, study.level, study.bootstrap_samples)
    return [
        ContrastResult(
            arm=arm,
            against=against,
            delta=difference.delta,
            ci_low=difference.both.low,
            ci_high=difference.both.high,
            seed_ci=difference.seeds,
            document_ci=difference.documents,
            level=difference.level,
            p_value=difference.p_value,
            verdict=verdict_of(difference.both, passed >= {arm, against}),
        )
        for (arm, against), difference in zip(study.contrasts, found.values(), strict=True)
    ]


def contrast_words(found: ContrastResult) -> str:
    """Say what a contrast shows."""
    pair = f"{found.arm} and {found.against}"
    if found.verdict == "INCONCLUSIVE":
        return f"INCONCLUSIVE: {pair} (one or the control does not beat its baselines)"
    numbers = (
        f"{signed(found.delta)} bits per byte ({100 * (1 - found.level):.4g} % interval"
        f" {signed(found.ci_low)} to {signed(found.ci_high)})"
    )
    if found.verdict == "no difference seen":
        return f"no difference seen between {pair}: {numbers}"
    return f"{found.arm} is {found.verdict.removeprefix('arm ')} than {found.against}: {numbers}"


def contrast_cells(found: ContrastResult) -> list[str]:
    """Return the cells of a table: pair, difference, interval, coverage, p, verdict."""
    return [
        f"{found.arm} − {found.against}",
        signed(found.delta),
        f"{signed(found.ci_low)} to {signed(found.ci_high)}",
        f"{100 * (1 - found.level):.4g} %",
        f"{found.p_value:.4f}",
        found.verdict,
    ]


CONTRAST_HEADS = ["contrast", "difference", "interval", "coverage", "p", "verdict"]


def contrast_table(contrasts: list[ContrastResult]) -> Table:
    """Return the contrasts as a table for a terminal, without the coverage."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("contrast", "difference", "interval", "p", "verdict"):
        is_text = heading in {"contrast", "verdict"}
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=True)
    for found in contrasts:
        pair, difference, interval, _, p_value, verdict = contrast_cells(found)
        table.add_row(pair, difference, interval, p_value, SHORT.get(verdict, verdict))
    return table
