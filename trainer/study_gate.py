"""The gate: which arms are trained enough to judge data, and if not all, how much is missing?

An arm passes with all its runs. One that fails is INCONCLUSIVE alone: the others are compared with
the control and not with it. A control that fails takes all with it.
"""

import numpy as np

from trainer.records import ArmResult, RunRecord
from trainer.show import quantity
from trainer.study_controls import few
from trainer.study_curves import FURTHEST, Curve, Need, tokens_needed


def curve_points(run: RunRecord) -> Curve:
    """Return a run's validation curve as arrays."""
    return Curve(
        np.array([point.tokens for point in run.curve], np.float64),
        np.array([point.valid_bpb for point in run.curve], np.float64),
    )


def anchored_curve(run: RunRecord) -> Curve:
    """Return a run's curve, moved so that it ends at its score on all validation documents.

    A curve's points are measured on few documents. Where these are not like the rest, two curves
    are as far apart as they are, and not as the arms.
    """
    curve = curve_points(run)
    return Curve(curve.tokens, curve.bpb + (run.bpb - curve.bpb[-1]))


def decay_start(run: RunRecord) -> float:
    """Return after how many tokens the learning rate decays; a cosine does from the first."""
    config = run.config
    return (1 - config.decay if config.schedule == "wsd" else 0.0) * run.tokens


def judged_arms(arms: dict[str, ArmResult], control: str) -> set[str]:
    """Return the arms whose difference from the control may be read: both passed the gate.

    Holm's procedure is over all arms nevertheless: what it calls wrongly with a chance of at most
    its level holds of any part of them, and how many are compared does not depend on the runs.
    """
    if not arms[control].beats_baselines:
        return set()
    return {name for name, arm in arms.items() if arm.beats_baselines and name != control}


def gate_need(arms: dict[str, ArmResult], runs: dict[str, list[RunRecord]]) -> Need:
    """Return how many more tokens a run would need until every run beats its baselines.

    The baselines of a longer run have read more as well. So the goal lies between the baselines of
    what the run read and those of all that its arm holds.
    """
    needs = []
    for name, records in runs.items():
        everything = arms[name].baselines_all
        for run in records:
            if run.beats_baselines:
                continue
            nearest = min(run.baselines.unigram, run.baselines.bigram)
            furthest = min(nearest, everything.unigram, everything.bigram)
            gaps = (run.bpb - nearest, run.bpb - furthest)
            needs.append(tokens_needed(curve_points(run), gaps, decay_start(run)))
    lows, highs = [need.low for need in needs], [need.high for need in needs]
    return Need(_largest(lows), _largest(highs))


def _largest(values: list[float | None]) -> float | None:
    """Return the largest of all, unknown where one is unknown."""
    known = [value for value in values if value is not None]
    return max(known) if known and len(known) == len(values) else None


def gate_sentence(arms: dict[str, ArmResult], control: str, need: Need | None) -> str:
    """Say whether all runs beat their baselines, and what those that do not would need."""
    runs = [seed for arm in arms.values() for seed in arm.seeds]
    failed = [seed.run for seed in runs if not seed.beats_baselines]
    if need is None:
        return f"all {len(runs)} runs beat the unigram and bigram models of what they read"
    judged = judged_arms(arms, control)
    lost = [name for name in arms if name != control and name not in judged]
    if judged:
        which = f"so nothing is said of {', '.join(lost)}, and the other arms are judged"
    elif arms[control].beats_baselines:
        which = "so nothing is said of any arm"
    else:
        which = f"those of the control {control} among them, so nothing is said of any arm"
    return (
        f"{len(failed)} of {len(runs)} runs did not beat the unigram and bigram models of what they"
        f" read ({few(failed)}), {which}: such models are too little trained to judge data; raise"
        f" train.tokens{_need_words(need)}"
    )


def _need_words(need: Need) -> str:
    if need.low is None:
        return (
            "; by how much is unknown: the curves before the decay of the learning rate have too"
            f" few points, or reach no baseline within {FURTHEST:g} times as many tokens"
        )
    if need.high is None:
        return f" by at least {quantity(need.low)} (by the curves; at most, that is unknown)"
    return f" by {quantity(need.low)} to {quantity(need.high)} (by extending the curves)"
