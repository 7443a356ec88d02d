"""What a run remembers of its steps: for its record, and to tell a bad step from a good one.

Both are plain data in the checkpoint, so that the record needs no other file and a resumed run
judges a step as the uninterrupted one would.
"""

import math

import msgspec

from trainer.config import TrainConfig
from trainer.records import CurvePoint, Metrics

WINDOW = 128
"""Steps that a step is compared with, and `sigma` below: those of OLMo 2's skip-step optimiser
(OLMo et al. 2024, "2 OLMo 2 Furious", section 3.1)."""

MIN_WINDOW = WINDOW // 2
"""Steps that must have been seen before one can be called a spike."""


class Guard(msgspec.Struct):
    """Losses and gradient norms of the last `WINDOW` steps that were taken."""

    losses: list[float] = []
    norms: list[float] = []
    skipped_in_a_row: int = 0

    def objection(self, loss: float, norm: float, sigma: float) -> str | None:
        """Say why a step should not be taken; None if it should.

        A loss or a norm that is not finite would spoil every weight. One that lies more than
        `sigma` standard deviations above the mean of the window is a spike (0: no such rule).
        """
        for name, value, window in (("loss", loss, self.losses), ("norm", norm, self.norms)):
            if not math.isfinite(value):
                return f"{name} {value} is not finite"
            if sigma and len(window) >= MIN_WINDOW:
                mean, deviation = _mean_and_deviation(window)
                if value > mean + sigma * deviation:
                    return f"{name} {value:.6g} > mean {mean:.6g} + {sigma:g} × {deviation:.6g}"
        return None

    def take(self, loss: float, norm: float) -> None:
        """Note a step that was taken."""
        self.losses = [*self.losses, loss][-WINDOW:]
        self.norms = [*self.norms, norm][-WINDOW:]
        self.skipped_in_a_row = 0

    def skip(self) -> None:
        """Note a step that was not taken."""
        self.skipped_in_a_row += 1


def rollback_point(config: TrainConfig, step: int) -> int | None:
    """Return the step whose checkpoint a spike right after `step` goes back to; None for none.

    PaLM went back about 100 steps before a spike and left out the batches around it, 200 to 500,
    which did not spike again elsewhere (Chowdhery et al. 2022, section 5.1). Here a run goes back
    to the last multiple of `checkpoint_every` before the spike and leaves out the batches from
    there to the spike's own. A multiple and not the last checkpoint: signals make checkpoints too,
    and when they come must not decide a result. Steps keep their batches and their learning rates,
    so nothing else moves.
    """
    if config.spike != "rollback":
        return None
    return step - step % config.checkpoint_every or None


class Times(msgspec.Struct, omit_defaults=True):
    """Seconds of all steps, and those of them spent waiting for data.

    `cpu_seconds` are those of the process, user and system of all its threads, with validation,
    checkpoints and baselines; what was done after the last checkpoint of a killed process is lost.

    Defaults are left out, so that a checkpoint without CPU time still fits its check.

    Not part of `History`: two equal runs have checkpoints of equal state.
    """

    seconds: float = 0.0
    wait_seconds: float = 0.0
    cpu_seconds: float = 0.0

    def add(self, row: Metrics) -> None:
        """Add those of a step."""
        self.seconds += row.seconds
        self.wait_seconds += row.seconds * row.wait_share


class History(msgspec.Struct):
    """The learning curve of a run; `losses` and `loss_sum` count from its last point.

    skipped: steps without an update; undone: updates that a rollback took back.
    """

    curve: list[CurvePoint] = []
    losses: int = 0
    loss_sum: float = 0.0
    skipped: int = 0
    undone: int = 0
    guard: Guard = msgspec.field(default_factory=Guard)

    def add(self, row: Metrics) -> None:
        """Note a step and, where it was validated, the next point of the curve."""
        if math.isfinite(row.loss):
            self.losses += 1
            self.loss_sum += row.loss
        if row.valid_bpb is not None:
            mean = self.loss_sum / max(1, self.losses)
            point = CurvePoint(row.step, row.tokens, mean, row.valid_bpb)
            self.curve = [*self.curve, point]
            self.losses, self.loss_sum = 0, 0.0


def _mean_and_deviation(values: list[float]) -> tuple[float, float]:
    """Return the mean and the (population) standard deviation, summed exactly."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
