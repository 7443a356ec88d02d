"""A discrete-event simulation of a job that fails and restarts: the check of `plan.goodput`."""

import numpy as np


def simulate_goodput(
    interval_s: float,
    save_s: float,
    restart_s: float,
    mtbf_s: float,
    *,
    intervals: int = 2000,
    seed: int = 0,
) -> float:
    """Return the share of wall-clock time that is kept work, over `intervals` checkpoints.

    Times between failures are exponential with mean `mtbf_s`. A failure while working or saving
    throws away what came after the last checkpoint; one while restarting starts the restart again.
    """
    rng = np.random.default_rng(seed)
    now, kept = 0.0, 0
    next_failure = rng.exponential(mtbf_s)
    while kept < intervals:
        if next_failure >= now + interval_s + save_s:
            now += interval_s + save_s
            kept += 1
            continue
        now = next_failure
        next_failure = now + rng.exponential(mtbf_s)
        while next_failure < now + restart_s:
            now = next_failure
            next_failure = now + rng.exponential(mtbf_s)
        now += restart_s
    return kept * interval_s / now
