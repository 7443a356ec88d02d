"""Which arms lack the control that they need, and why (light: imports no torch)."""

import math
from typing import NamedTuple

from trainer.records import ArmResult
from trainer.study_config import StudyConfig

MOST_NAMES = 6
"""Arms that a sentence names."""

AS_LARGE = 1.01
"""How many times an arm's tokens a random subset may hold that is no larger: a subset made to be of
one size with another arm misses that by part of a document."""


def without_random(arms: dict[str, ArmResult], study: StudyConfig) -> list[str]:
    """Return the arms that hold less than the control and have no random subset of equal size.

    Selections, bands, mixtures and probes (`StudyConfig.sized_arms`), each document counted once.
    Others need none: a repeat arm is a random subset, and small on purpose; a curriculum holds at
    most what a run reads, so its runs read no less than any, and its twin `shuffled-NAME` has the
    same documents. With equal unique tokens all arms are of one size.
    """
    if study.budget == "unique":
        return []
    size = arms[study.control].available_tokens
    chosen = [name for name in study.sized_arms if name not in study.random_subsets]
    return [name for name in chosen if name in arms and arms[name].available_tokens < size]


class Lacking(NamedTuple):
    """Arms without a random subset of their own size, and what `speaks` for some of them.

    The random subsets in `speaks` hold no more than any arm that is `covered`: what less data does
    by itself is, if anything, seen better in them. Those in `open` are smaller than any of them.
    Random subsets that `failed` the gate show nothing.
    """

    covered: list[str]
    speaks: list[str]
    open: list[str]
    failed: list[str]


def lacking(arms: dict[str, ArmResult], study: StudyConfig) -> Lacking:
    """Part the arms that lack a random subset by whether one that is no larger speaks."""
    sizes = {name: arm.available_tokens for name, arm in arms.items()}
    subsets = [f"random-{name}" for name in study.random_subsets if f"random-{name}" in arms]
    good = [name for name in subsets if arms[name].beats_baselines]
    smallest = min((sizes[name] for name in good), default=math.inf)
    missing = without_random(arms, study)
    covered = [name for name in missing if AS_LARGE * sizes[name] >= smallest]
    least = min((sizes[name] for name in covered), default=0)
    return Lacking(
        covered,
        [name for name in good if sizes[name] <= AS_LARGE * least],
        [name for name in missing if name not in covered],
        [name for name in subsets if name not in good],
    )


def caution(arms: dict[str, ArmResult], study: StudyConfig) -> str:
    """Say which arms have no random subset of equal size; empty where none lacks one."""
    found, said = lacking(arms, study), []
    if found.covered:
        said.append(
            f"Beside {few(found.covered)} there is no random subset of equal size;"
            f" {', '.join(found.speaks)}, no larger, shows what less data alone does."
        )
    if found.open:
        said.append(
            f"Beside {few(found.open)} there is no random subset of equal size"
            f"{_that_failed(found)}: less data alone might explain the difference"
            " (study.random_like)."
        )
    return " ".join(said)


def random_words(arms: dict[str, ArmResult], study: StudyConfig) -> str:
    """Say which random subsets of equal size the study has, and why an arm has none."""
    if study.budget == "unique":
        return "none is needed: every arm is cut to as many tokens, the control by the same draw"
    found = lacking(arms, study)
    said = [", ".join(f"random-{name}" for name in study.random_subsets)]
    if found.covered:
        smaller = ", ".join(found.speaks)
        said.append(
            f"none for {few(found.covered)}: {smaller}, no larger, shows what less data alone does"
        )
    if found.open:
        said.append(
            f"none for {few(found.open)}{_that_failed(found)}: less data alone might explain the"
            " difference"
        )
    return "; ".join(filter(None, said)) or f"none is needed: {_none_smaller(arms, study)}"


def _that_failed(found: Lacking) -> str:
    """Say why random subsets that there are do not count."""
    return f", and {', '.join(found.failed)} did not pass the gate" if found.failed else ""


def _none_smaller(arms: dict[str, ArmResult], study: StudyConfig) -> str:
    """Say that no arm is smaller than the control, but for those that need no random subset."""
    size = arms[study.control].available_tokens
    special = {
        "repeat arms, small on purpose": [f"repeat-{times}" for times in study.repeats],
        "curricula, which have twins": list(study.curricula),
    }
    small = [
        words
        for words, names in special.items()
        if any(name in arms and arms[name].available_tokens < size for name in names)
    ]
    but = f" but for {' and '.join(small)}" if small else ""
    return f"no arm is smaller than the control{but}"


def few(names: list[str]) -> str:
    """Name the first of many."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
