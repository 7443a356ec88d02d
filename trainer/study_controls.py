"""Which arms lack the control that they need, and why (light: imports no torch)."""

from trainer.records import ArmResult
from trainer.study_config import StudyConfig


def without_random(arms: dict[str, ArmResult], study: StudyConfig) -> list[str]:
    """Return the arms that hold less than the control and have no random subset of equal size.

    Only selections and bands: what mixtures, curricula and repeat arms hold follows from the
    budget. With equal unique tokens all arms are of one size.
    """
    if study.budget == "unique":
        return []
    size = arms[study.control].available_tokens
    chosen = [name for name in (*study.arms, *study.bands) if name not in study.random_subsets]
    return [name for name in chosen if name in arms and arms[name].available_tokens < size]


def smaller_random(missing: list[str], arms: dict[str, ArmResult], study: StudyConfig) -> list[str]:
    """Return the random subsets that hold no more than any of the arms that lack one of their own.

    What less data does by itself is, if anything, seen better in these.
    """
    least = min((arms[name].available_tokens for name in missing), default=0)
    return [
        f"random-{name}"
        for name in study.random_subsets
        if name in arms and arms[name].available_tokens <= least
    ]


def caution(arms: dict[str, ArmResult], study: StudyConfig) -> str:
    """Say which arms have no random subset of equal size; empty where none lacks one."""
    missing = without_random(arms, study)
    if not missing:
        return ""
    beside = f"Beside {', '.join(missing)} there is no random subset of equal size"
    if smaller := smaller_random(missing, arms, study):
        return f"{beside}; {', '.join(smaller)}, smaller still, shows what less data alone does."
    return f"{beside}: less data alone might explain the difference (study.random_like)."


def random_words(arms: dict[str, ArmResult], study: StudyConfig) -> str:
    """Say which random subsets of equal size the study has, and why an arm has none."""
    if study.budget == "unique":
        return "none is needed: every arm is cut to as many tokens, the control by the same draw"
    there = ", ".join(f"random-{name}" for name in study.random_subsets)
    missing = without_random(arms, study)
    if not missing:
        return there or "none is needed: no arm is smaller than the control"
    smaller = ", ".join(smaller_random(missing, arms, study))
    end = (
        f"{smaller}, smaller still, shows what less data alone does"
        if smaller
        else "less data alone might explain the difference"
    )
    return f"{there}{'; ' if there else ''}none for {', '.join(missing)}: {end}"
