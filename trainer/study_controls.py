"""Which arms lack the control that they need (light: imports no torch)."""

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
    chosen = [name for name in (*study.arms, *study.bands) if name not in study.random_like]
    return [name for name in chosen if name in arms and arms[name].available_tokens < size]


def caution(missing: list[str]) -> str:
    """Say which arms have no random subset of equal size; empty where none lacks one."""
    if not missing:
        return ""
    return (
        f"Beside {', '.join(missing)} there is no random subset of equal size: less data alone"
        " might explain the difference (study.random_like)."
    )
