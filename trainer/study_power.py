"""Before a study runs: which difference can its seeds and documents see?

A difference δ is called where |δ̂| exceeds √(t² s²/S + q² σ_D²): the seeds' t half-width and the
documents' (see `trainer.stats.combine`), with s the standard deviation found over S seeds. So its
power is an integral over what s may turn out to be, σ² χ²(S − 1) / (S − 1).

Noise that belongs to seed *and* document is in what a study measures over its seeds and in what it
measures over its documents, and counts in both half-widths. So both standard deviations are meant
as measured, with that noise: without it the power promised is up to 7 points too high.
"""

import math

import numpy as np
from scipy import special

from trainer.stats import Ints, effective_documents
from trainer.study_config import StudyConfig

_QUANTILES = (np.arange(100) + 0.5) / 100
"""Where the law of s is cut: the mean over 100 equally likely values."""


def power_of(
    effect: float,
    *,
    seeds: int,
    seed_sd: float,
    document_sd: float,
    documents: float,
    level: float,
) -> float:
    """Return the chance that a difference of `effect` bits per byte is called, with its sign.

    Args:
        effect: the true difference, > 0.
        seeds: S ≥ 2.
        seed_sd: standard deviation over seeds of the paired difference on all documents, bits per
            byte, as a study measures it.
        document_sd: standard deviation over documents of the same, mean over the S seeds.
        documents: effective number of documents, ≥ 2 (`trainer.stats.effective_documents`).
        level: of the two-sided test; divide by the number of arms for Holm's first step.
    """
    freedom = seeds - 1
    found = seed_sd * np.sqrt(special.chdtri(freedom, 1 - _QUANTILES) / freedom)
    by_seed = special.stdtrit(freedom, 1 - level / 2) * found / math.sqrt(seeds)
    error = document_sd / math.sqrt(documents)
    by_document = special.stdtrit(documents - 1, 1 - level / 2) * error
    half = np.hypot(by_seed, by_document)
    spread = math.hypot(seed_sd / math.sqrt(seeds), error)
    return float(special.ndtr((effect - half) / spread).mean())


def detectable_difference(
    *,
    seeds: int,
    seed_sd: float,
    document_sd: float,
    documents: float,
    level: float,
    power: float = 0.8,
) -> float:
    """Return the smallest difference in bits per byte that is called with a chance of `power`.

    Arguments as for `power_of`.
    """

    def is_seen(effect: float) -> bool:
        return power <= power_of(
            effect,
            seeds=seeds,
            seed_sd=seed_sd,
            document_sd=document_sd,
            documents=documents,
            level=level,
        )

    low, high = 0.0, seed_sd + document_sd
    while not is_seen(high):
        low, high = high, 2 * high
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if is_seen(middle) else (middle, high)
    return high


def planned_difference(study: StudyConfig, sizes: Ints) -> float:
    """Return what a study can see with a chance of 80 %, by what its recipe expects.

    Args:
        study: its seeds, arms, level and expected standard deviations.
        sizes: int64[D], raw bytes of the validation documents.
    """
    return detectable_difference(
        seeds=len(study.seeds),
        seed_sd=study.expected_seed_sd,
        document_sd=study.expected_document_sd,
        documents=effective_documents(sizes),
        level=study.level / (len(study.arm_names) - 1),
    )


def power_line(study: StudyConfig, sizes: Ints) -> str:
    """Say before a study what it can see."""
    return (
        f"{len(study.seeds)} seeds, {len(sizes)} validation documents (worth"
        f" {effective_documents(sizes):.0f} of equal size), {len(study.arm_names) - 1} comparisons:"
        f" a difference of {planned_difference(study, sizes):.3f} bits per byte is seen with a"
        f" chance of 80 %, if standard deviations are {study.expected_seed_sd:g} over seeds and"
        f" {study.expected_document_sd:g} over documents"
    )
