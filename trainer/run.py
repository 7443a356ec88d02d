"""A run under way: its model, its place in the data, one step, and its checkpoint.

`trainer/loop.py` takes the steps.
"""

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import msgspec
import torch
from torch import nn

from shards.atomic import write_atomic
from shards.batches import open_batches
from shards.dataset import TokenView
from shards.errors import CorruptError, TrainingError
from shards.loader import Batches
from shards.torch import TorchLoader
from trainer.begun import BEGUN, definitions_of, write_begun
from trainer.checkpoint import Checkpoint, load_checkpoint, load_step, prune_checkpoints
from trainer.config import TrainConfig
from trainer.data import Documents
from trainer.device import (
    autocast,
    choose_device,
    compile_blocks,
    make_deterministic,
    peak_memory_bytes,
    rng_state,
    take_device,
    wait_for,
)
from trainer.evaluate import Evaluation, evaluate
from trainer.events import Event, add_event, cut_events, room_for
from trainer.folder import LOCK
from trainer.history import History, Times, rollback_point
from trainer.loss import IGNORED
from trainer.model import Transformer, mean_nats
from trainer.optim import build_optimizers, learning_rate_factor, set_learning_rate
from trainer.progress import Reporter
from trainer.ranks import ALONE, Ranks
from trainer.records import (
    METRICS,
    Metrics,
    read_metrics,
)
from trainer.reduce import OrderedSum
from trainer.replicas import check_replicas
from trainer.saving import Saver
from trainer.sharded import (
    InOrder,
    clip_sharded,
    pieces,
    reshard,
    shard,
    taken,
    taken_optimizer,
    uncut,
)
from trainer.sizes import flops_per_token
from trainer.speed import Peak, peak
from trainer.stragglers import RankTimes

T = TypeVar("T")


@dataclass
class Run:
    """A run under way: everything that a checkpoint holds, and where it belongs."""

    config: TrainConfig
    folder: Path
    key: str
    device: torch.device
    model: Transformer
    optimizers: list[torch.optim.Optimizer]
    loader: TorchLoader
    saver: Saver
    identity: dict[str, Any]
    peak: Peak
    ranks: Ranks = ALONE
    sharded: list[InOrder] = field(default_factory=list)
    step: int = 0
    history: History = field(default_factory=History)
    times: Times = field(default_factory=Times)
    rank_times: RankTimes = field(default_factory=RankTimes)
    waited: float = 0.0
    cpu_before: float = field(default_factory=time.process_time)
    resumed: Checkpoint | None = None

    @classmethod
    def begin(
        cls,
        view: TokenView,
        config: TrainConfig,
        folder: Path,
        key: str,
        reporter: Reporter,
        ranks: Ranks,
    ) -> "Run":
        """Make a run at its first step, or at that of its newest good checkpoint."""
        device = choose_device(config)
        take_device(device)
        make_deterministic(config, device)
        cut = config.parallel == "fsdp2" and ranks.world_size > 1
        with torch.device("meta") if cut else nullcontext():  # no rank ever has a whole model
            model = Transformer(
                config.model,
                view.dataset.vocab_size,
                config.sequence_length,
                eos=view.dataset.eos_id if config.document_masks else None,
                recompute=config.recompute,
            )
        if config.compile:
            compile_blocks(model.blocks)
        sums = shard(model, ranks.world_size, device) if cut else []
        if cut:
            model.to_empty(device=device)
        model.initialise(config.seed)
        model.to(device)
        loader = TorchLoader(batches_of(view, config, ranks), device)
        optimizers = build_optimizers(model, config)
        saver = Saver(folder, key, config, ranks, cut=cut)
        run = cls(
            config=config,
            folder=folder,
            key=key,
            device=device,
            model=model,
            optimizers=optimizers,
            loader=loader,
            saver=saver,
            identity=_identity(view, config, key),
            peak=peak(config, device),
            ranks=ranks,
            sharded=sums,
        )
        if cut:
            _check_folder(folder, ranks)
        found = run._loaded(partial(load_checkpoint, folder, key))
        if found:
            run._restore(found.entry, found.state)
        if ranks.first:
            with room_for(folder / BEGUN, run.step):
                write_begun(folder, view, config, ranks.world_size)
            cut_events(folder, run.step)
            pinned = rollback_point(config, run.step)
            keep = config.keep_checkpoints
            prune_checkpoints(folder, key, keep, newest=run.step, pinned=pinned)
        for reason in found.refused if found else ():
            run.add_event(Event(run.step, "damaged", reason))
            reporter.note(f"{reason}; the run goes on from the checkpoint of step {run.step}")
        return run

    def train_step(self) -> tuple[Metrics, str | None]:
        """Take the next step, or skip it; return what was measured, and why it was skipped.

        Raises:
            TrainingError: more than `max_skipped` steps in a row were skipped, or a GPU's memory
                is full.
        """
        config = self.config
        started = time.perf_counter()
        inputs, targets = next(self.loader)
        self.waited = time.perf_counter() - started
        factor = learning_rate_factor(
            self.step, config.total_steps, config.schedule, config.warmup, config.decay
        )
        set_learning_rate(self.optimizers, factor)
        try:
            loss_now, norm_now = self._gradient(inputs, targets)
        except torch.OutOfMemoryError as error:
            first_line = str(error).partition("\n")[0]
            raise TrainingError(
                f"{self.folder}: step {self.step + 1}: {first_line}; raise train.microbatches (now"
                f" {config.microbatches}), or set train.recompute = true"
            ) from error
        guard = self.history.guard
        objection = guard.objection(loss_now, norm_now, config.spike_sigma)
        for optimizer in self.optimizers:
            if objection is None:
                with self.ranks.together() if self.sharded else nullcontext():
                    optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if objection is None:
            guard.take(loss_now, norm_now)
        else:
            guard.skip()
            self.history.skipped += 1
            if guard.skipped_in_a_row > config.max_skipped:
                raise TrainingError(
                    f"{self.folder}: step {self.step}: {objection}, the {guard.skipped_in_a_row}."
                    " step in a row that is skipped; lower train.learning_rate (now"
                    f" {config.learning_rate}) or train.embedding_learning_rate (now"
                    f" {config.embedding_learning_rate})"
                )
        seconds = time.perf_counter() - started
        row = Metrics(
            step=self.step,
            tokens=self.step * config.batch_tokens,
            loss=loss_now,
            lr=config.learning_rate * factor,
            grad_norm=norm_now,
            seconds=seconds,
            tokens_per_s=config.batch_tokens / seconds,
            wait_share=self.waited / seconds,
            mfu=self.utilisation(config.batch_tokens / seconds),
            memory_bytes=peak_memory_bytes(self.device),
        )
        return row, objection

    def _gradient(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[float, float]:
        """Add up the gradients of all microbatches, in their order, and clip the sum.

        Microbatch m of M has the rows m, m + M, m + 2M… of the batch. Rank r of W has the rows r
        modulo W of it, so that its k-th part of M / W is microbatch k·W + r.

        Alone on a GPU, nothing is waited for before the end: the GPU always has work queued.

        Returns:
            The batch's loss, and the norm of its gradient before clipping.
        """
        ranks = self.ranks
        alone = ranks.world_size == 1
        parts = self.config.microbatches // ranks.world_size
        count: int | torch.Tensor = (targets != IGNORED).sum()
        if not alone:
            count = sum(int(n) for (n,) in ranks.gather([float(count)]))
        sums = OrderedSum(ranks, uncut(self.model))
        losses, own = [], self.waited
        for module in self.sharded:
            module.clear()
        for part in range(parts):
            begun = time.perf_counter()
            with ranks.together() if self.sharded else nullcontext():
                if self.sharded:  # what comes next is the sum with this, not to be added to it
                    self.model.zero_grad(set_to_none=True)
                with autocast(self.config, self.device):
                    loss = mean_nats(self.model, inputs[part::parts], targets[part::parts], count)
                torch.autograd.backward(loss)
            losses.append(loss.detach())
            if not alone:
                wait_for(self.device)  # so that its time is this rank's own
            own += time.perf_counter() - begun
            with ranks.together():
                sums.add()
        clip_as_cut = clip_sharded if self.sharded else clip
        with ranks.together():
            sums.finish()
            norm = clip_as_cut(self.model, self.config.grad_clip)
            *mine, norm_now = torch.stack([*losses, norm]).tolist()
        found = ranks.gather([own, self.waited, *mine])
        if not alone:
            self.rank_times.add([row[:2] for row in found])
        # From 0.0, one by one: `sum` and numpy would take other ways.
        total = 0.0
        for of_ranks in zip(*(row[2:] for row in found), strict=True):
            for value in of_ranks:
                total += value
        return total, norm_now

    def evaluate(self, documents: Documents, heed: Callable[[], None] = lambda: None) -> Evaluation:
        """Score documents, each rank its share of the batches; `heed` as in `evaluate`."""
        length = self.config.sequence_length
        with autocast(self.config, self.device):
            if not self.sharded:
                return evaluate(self.model, documents, length, self.device, self.ranks, heed)
            with self.ranks.together():  # every rank needs the others for each batch
                found = evaluate(self.model, documents, length, self.device, heed=heed)
        reshard(self.model)
        return found

    def utilisation(self, tokens_per_s: float) -> float:
        """Return the MFU at a speed of all ranks: model FLOPs a second over that of all peaks."""
        flops = self.flops_per_token * tokens_per_s
        return flops / (self.peak.flops_per_s * self.ranks.world_size)

    @property
    def flops_per_token(self) -> int:
        """Model FLOPs of training on one token."""
        config = self.config
        return flops_per_token(config.model, len(self.model.embedding), config.sequence_length)

    def add_event(self, event: Event) -> None:
        """Append an event to the run's file, on the first rank."""
        if self.ranks.first:
            add_event(self.folder, event)

    def save(self) -> None:
        """Begin to write the checkpoint of this step, once all ranks agree on the weights.

        Raises:
            TrainingError: the one before it could not be written, or a rank's weights are not those
                of the others.
        """
        if not self.sharded:
            check_replicas(self.ranks, self.model, self.step)
            if not self.ranks.first:
                return
        state = {
            "step": self.step,
            "identity": self.identity,
            "model": dict(self.model.state_dict()),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "loader": self.loader.state(),
            "rng": rng_state(self.device),
            "history": msgspec.to_builtins(self.history),
        }
        self.count_cpu()
        self.saver.save(self.step, pieces(state) if self.sharded else state, self.times)

    def count_cpu(self) -> float:
        """Add the CPU time since the last call to that of the run; return it, in seconds."""
        now = time.process_time()
        self.times.cpu_seconds += now - self.cpu_before
        self.cpu_before = now
        return self.times.cpu_seconds

    def roll_back(self) -> int | None:
        """After a spike, undo the updates since `rollback_point`, if the recipe says so.

        Weights, optimisers and what the guard has seen go back; the step, its place in the data and
        the curve stay.

        Returns:
            The step whose weights these are; None where there is nothing to go back to.

        Raises:
            CorruptError: the checkpoint is damaged or gone; the message says whether the run can go
                on from an older one.
        """
        point = rollback_point(self.config, self.step - 1)
        if point is None:
            return None
        self.saver.finish()
        try:
            found = self._loaded(partial(load_step, self.folder, self.key, point))
        except CorruptError as error:
            raise CorruptError(
                f"step {self.step} is a spike, which goes back to step {point}: {error}"
            ) from None
        self._restore_weights(found.state)
        now, then = self.history, msgspec.convert(found.state["history"], History)
        updates = (self.step - point) - (now.skipped - then.skipped)
        now.undone += updates - (now.undone - then.undone)
        then.guard.skipped_in_a_row = now.guard.skipped_in_a_row
        now.guard = then.guard
        return point

    def _loaded(self, load: Callable[..., T]) -> T:
        """Return a checkpoint on every rank; what is wrong with it is raised on every rank, too.

        Else the others would wait for a rank that has ended.
        """
        needs = partial(rollback_point, self.config)
        if self.sharded:
            return load(self.ranks, needs=needs)
        outcome: T | CorruptError | None = None
        if self.ranks.first:
            try:
                outcome = load(needs=needs)
            except CorruptError as error:
                outcome = error
        outcome = self.ranks.share(outcome)
        if isinstance(outcome, CorruptError):
            raise outcome
        return cast("T", outcome)

    def _restore(self, checkpoint: Checkpoint, state: dict[str, Any]) -> None:
        self.step, self.times, self.resumed = checkpoint.step, checkpoint.times, checkpoint
        self._restore_weights(state)
        self.loader.load_state(state["loader"])
        torch.set_rng_state(state["rng"]["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["rng"]["cuda"], self.device)
        self.history = msgspec.convert(state["history"], History)

    def _restore_weights(self, state: dict[str, Any]) -> None:
        of_model = self.model.state_dict()
        self.model.load_state_dict({k: taken(v, of_model[k]) for k, v in state["model"].items()})
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(taken_optimizer(saved, optimizer))

    def open_metrics(self, reporter: Reporter) -> IO[bytes]:
        """Open the metrics for appending, cut back to the step that the run goes on from."""
        if not self.ranks.first:
            return Path(os.devnull).open("wb", buffering=0)
        rows = read_metrics(self.folder, self.step)
        lost = self.step - self.history.skipped - len(rows)
        if lost:
            reporter.note(
                f"{self.folder / METRICS} lacks {lost} of the first {self.step} steps; the result"
                " does not need them"
            )
        lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        path = self.folder / METRICS
        with room_for(path, self.step):
            write_atomic(path, lines)
        return path.open("ab", buffering=0)


def clip(model: nn.Module, limit: float) -> torch.Tensor:
    """Scale gradients to a total norm of at most `limit` (0: leave them); return the old norm."""
    return nn.utils.clip_grad_norm_(model.parameters(), limit or float("inf"), foreach=True)


def _identity(view: TokenView, config: TrainConfig, key: str) -> dict[str, Any]:
    """Return what a checkpoint says of where it comes from; nothing reads it back."""
    return {
        "run_key": key,
        "dataset_id": view.dataset.dataset_id,
        "select": view.expression,
        "config": msgspec.to_builtins(config),
        "definitions": definitions_of(config),
    }


def _check_folder(folder: Path, ranks: Ranks) -> None:
    """Check that all ranks see the first one's folder, where each will write its part.

    Raises:
        TrainingError: names the ranks that do not.
    """
    lock = folder / LOCK
    seen = ranks.gather_objects(lock.read_bytes() if lock.exists() else b"")
    blind = [rank for rank, text in enumerate(seen) if text != seen[0]]
    if blind:
        raise TrainingError(
            f"rank{'s' if len(blind) > 1 else ''} {', '.join(map(str, blind))} of"
            f" {ranks.world_size} cannot see rank 0's folder {folder}: with train.parallel ="
            " 'fsdp2' every rank writes its part of a checkpoint; give an --out that all machines"
            " share"
        )


def batches_of(view: TokenView, config: TrainConfig, ranks: Ranks = ALONE) -> Batches:
    """Return a rank's batches of a run, from the first on."""
    samples = config.total_steps * config.batch_size
    place = {"rank": ranks.rank, "world_size": ranks.world_size}
    return open_batches(view, config, config.seed, samples=samples, **place)
