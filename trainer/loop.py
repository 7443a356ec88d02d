"""One training run, from its first step to `run.json`, with stops anywhere in between.

Given the same settings, data and device, a run gives the same weights bit for bit, stopped and
resumed or not: weights, optimisers, loader and random state are in the checkpoint, and the number
of CPU threads belongs to the settings. `run.json` holds a hash of all that decides the result (the
run key), so a finished run is not run again, and a run of something else is never resumed.
"""

import os
import resource
import signal
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec
import torch
from torch import nn

from shards.atomic import write_atomic
from shards.dataset import TokenView
from shards.errors import PlatformError, TrainingError
from shards.hashing import stable_hash
from shards.loader import Loader
from shards.torch import TorchLoader
from trainer.baselines import fit_and_score, pairs_read
from trainer.checkpoint import (
    Checkpoint,
    Found,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from trainer.config import DEFINITIONS, TrainConfig
from trainer.data import Documents
from trainer.evaluate import Evaluation, evaluate
from trainer.events import Event, add_event, cut_events
from trainer.folder import claim
from trainer.history import History, Times
from trainer.loss import IGNORED
from trainer.memory import keep_freed_memory
from trainer.model import Transformer, mean_nats
from trainer.monitor import Values, open_monitor
from trainer.optim import build_optimizers, learning_rate_factor, set_learning_rate
from trainer.parallel import is_orphan
from trainer.progress import Reporter
from trainer.ranks import ALONE, Ranks
from trainer.records import (
    METRICS,
    RUN,
    Metrics,
    RunRecord,
    read_metrics,
    read_record,
    write_record,
    write_valid,
)
from trainer.reduce import OrderedSum
from trainer.replicas import check_replicas
from trainer.sharded import (
    InOrder,
    clip_sharded,
    cut_like,
    cut_optimizer,
    reshard,
    shard,
    uncut,
    whole,
)
from trainer.signals import Stopped, stop_signals
from trainer.sizes import flops_per_token, parameter_count
from trainer.speed import product_rate, utilisation
from trainer.stragglers import RankTimes

HAS_NO_EFFECT = (
    "checkpoint_every",
    "keep_checkpoints",
    "parallel",
    "rank_timeout_s",
    "replica_check_every",
    "prometheus_port",
    "tensorboard",
)
"""Settings that change what can be resumed and how, but not the result."""


def run_key(view: TokenView, valid: Documents, config: TrainConfig) -> str:
    """Return the hash of everything that decides the result of a run."""
    settings = msgspec.to_builtins(config)
    for name in HAS_NO_EFFECT:
        del settings[name]
    return stable_hash(
        {
            "config": settings | {"device": choose_device(config).type},
            "dataset": view.dataset.dataset_id,
            "selection": view.selection_hash,
            "valid": valid.digest(),
            "definitions": DEFINITIONS,
        }
    )


def choose_device(config: TrainConfig) -> torch.device:
    """Return the device to train on; "auto" is a GPU where there is one.

    Raises:
        PlatformError: `cuda` was asked for and is not there.
    """
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise PlatformError("train.device = 'cuda', but torch sees no GPU; use 'auto' or 'cpu'")
    return torch.device("cuda" if available and config.device != "cpu" else "cpu")


def finished(folder: Path, key: str) -> RunRecord | None:
    """Return the record of a finished run with this key, if `folder` holds it."""
    path = folder / RUN
    if not path.exists():
        return None
    record = read_record(path, RunRecord)
    return record if record.run_key == key else None


def train(
    view: TokenView,
    valid: Documents,
    config: TrainConfig,
    folder: Path,
    reporter: Reporter,
    name: str = "train",
) -> RunRecord:
    """Train one model, or finish or skip one that was begun in `folder`.

    Args:
        view: what to train on.
        valid: what to validate on; the caller sees to it that the two are apart.
        config: the settings, with the seed of this run.
        folder: where the run's files go; another run's files there are replaced.
        reporter: shows progress under `name`.

    Raises:
        RecipeError: the folder cannot be made or written to.
        TrainingError: no data, too many steps in a row whose loss or gradient is not finite or
            spikes, a full disk, or another process is at work in the folder.
        CorruptError: a data block, or every checkpoint, does not match its hash.
        Stopped: SIGTERM or SIGUSR1 came, or the study that started this process is gone; the
            checkpoint is written.
        KeyboardInterrupt: SIGINT came; the checkpoint is written.
    """
    record = train_on_ranks(view, valid, config, folder, reporter, ALONE, name)
    if record is None:  # only ranks beyond the first have none
        raise TrainingError(f"{folder}: the run has no record")
    return record


def train_on_ranks(
    view: TokenView,
    valid: Documents,
    config: TrainConfig,
    folder: Path,
    reporter: Reporter,
    ranks: Ranks,
    name: str = "train",
) -> RunRecord | None:
    """Train one model as one of `ranks`: `train`, whose record only the first rank returns.

    Only the first rank reads and writes `folder`; the result does not depend on how many there are.

    Raises:
        TrainingError: also when a rank is gone or hangs, or its weights or its settings are not
            those of the others; names the rank.
    """
    key = run_key(view, valid, config)
    _check_same(ranks, key)
    record = ranks.share(finished(folder, key) if ranks.first else None)
    if record is None:
        with claim(folder) if ranks.first else nullcontext():
            # by the process that this one waited for
            record = ranks.share(finished(folder, key) if ranks.first else None)
            if record is None:
                return _train(view, valid, config, folder, key, reporter, ranks, name)
    reporter.skipped(name, record.bpb)
    return record if ranks.first else None


def _check_same(ranks: Ranks, key: str) -> None:
    """Check that every rank was started with the same settings and data."""
    mine = float(int(key[:12], 16))
    found = ranks.gather([mine])
    odd = [rank for rank, value in enumerate(found) if value != found[0]]
    if odd:
        raise TrainingError(
            f"rank {odd[0]} of {ranks.world_size} was started with other settings or data than rank"
            " 0: give every rank the same recipe, options and dataset"
        )


def _train(
    view: TokenView,
    valid: Documents,
    config: TrainConfig,
    folder: Path,
    key: str,
    reporter: Reporter,
    ranks: Ranks,
    name: str,
) -> RunRecord | None:
    if ranks.first:
        (folder / RUN).unlink(missing_ok=True)
    keep_freed_memory()
    run = _Run.begin(view, config, folder, key, reporter, ranks)
    curve_documents = valid.head(config.curve_tokens)
    reporter.start(name, config.total_steps, run.step)
    saved = run.resumed
    with (
        run.loader,
        run.open_metrics(reporter) as metrics,
        open_monitor(config, folder, reporter.note, first=ranks.first) as monitor,
        stop_signals() as stop,
    ):
        rate = product_rate(config, run.device) if monitor.active else 0.0
        while run.step < config.total_steps:
            saved = on_curve = None
            row, objection = run.train_step()
            if _due(run.step, config.eval_every, config.total_steps):
                on_curve = run.evaluate(curve_documents)
                row = msgspec.structs.replace(row, valid_bpb=on_curve.bpb)
                reporter.evaluated(on_curve.bpb)
            run.history.add(row)
            run.times.add(row)
            if objection:
                run.add_event(Event(run.step, "skipped", objection))
                reporter.note(f"{name}: step {run.step} skipped: {objection}")
            else:
                metrics.write(msgspec.json.encode(row) + b"\n")
                metrics.flush()
            if monitor.active:
                monitor.update(run.step, _monitored(run, row, on_curve, rate))
            reporter.step(run.step, row.loss, row.tokens_per_s)
            if slow := run.rank_times.report():
                reporter.note(f"{name}: step {run.step}: {slow}")
            number = _agree(ranks, signal.SIGTERM if is_orphan() else stop.signal)
            if not run.sharded and _due(run.step, config.replica_check_every, config.total_steps):
                check_replicas(ranks, run.model, run.step)
            if number or _due(run.step, config.checkpoint_every, config.total_steps):
                saved = run.save()
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            if number:
                raise Stopped(
                    f"{name}: {number.name} at step {run.step} of {config.total_steps}: the"
                    " checkpoint is written"
                )
    evaluation = run.evaluate(valid)
    # The last step is always saved, and a run that has no step left was resumed from there.
    return _finish(run, view, valid, evaluation, saved) if ranks.first and saved else None


def _monitored(run: "_Run", row: Metrics, on_curve: Evaluation | None, rate: float) -> Values:
    """Return the numbers of a step for a monitor; `rate`: the machine's FLOPs a second."""
    numbers = {
        "step": row.step,
        "tokens": row.tokens,
        "loss": row.loss,
        "grad_norm": row.grad_norm,
        "learning_rate": row.lr,
        "tokens_per_s": row.tokens_per_s,
        "mfu": row.tokens_per_s * run.flops_per_token / rate,
        "wait_share": row.wait_share,
        "memory_bytes": _peak_memory_bytes(run.device),
        "skipped_steps": run.history.skipped,
    }
    values: Values = {(name, ()): float(number) for name, number in numbers.items()}
    if on_curve:
        values["valid_bpb", ()] = on_curve.bpb
        for source, bpb in on_curve.by_source().items():
            values["valid_bpb", (("source", source),)] = bpb
    for rank, times in enumerate(run.rank_times.facts()):
        for name, number in times.items():
            values[f"rank_{name}", (("rank", str(rank)),)] = number
    return values


def _agree(ranks: Ranks, number: signal.Signals | None) -> signal.Signals | None:
    """Return a signal that came to any rank, the same one on all, so that all stop together."""
    highest = max(value for (value,) in ranks.gather([float(number or 0)]))
    return signal.Signals(int(highest)) if highest else None


def _due(step: int, every: int, last: int) -> bool:
    return step == last or (every > 0 and step % every == 0)


@dataclass
class _Run:
    """A run under way: everything that a checkpoint holds, and where it belongs."""

    config: TrainConfig
    folder: Path
    key: str
    device: torch.device
    model: Transformer
    optimizers: list[torch.optim.Optimizer]
    loader: TorchLoader
    ranks: Ranks = ALONE
    sharded: list[InOrder] = field(default_factory=list)
    step: int = 0
    history: History = field(default_factory=History)
    times: Times = field(default_factory=Times)
    rank_times: RankTimes = field(default_factory=RankTimes)
    waited: float = 0.0
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
    ) -> "_Run":
        """Make a run at its first step, or at that of its newest good checkpoint."""
        device = choose_device(config)
        _make_deterministic(config)
        model = Transformer(config.model, view.dataset.vocab_size, config.sequence_length)
        model.initialise(config.seed)
        model.to(device)
        cut = config.parallel == "fsdp2" and ranks.world_size > 1
        sums = shard(model, ranks.world_size) if cut else []
        loader = TorchLoader(_loader(view, config, ranks), device)
        optimizers = build_optimizers(model, config)
        run = cls(config, folder, key, device, model, optimizers, loader, ranks, sums)
        found: Found | None = ranks.share(load_checkpoint(folder, key) if ranks.first else None)
        if found:
            run._restore(found.entry, found.state)
        if ranks.first:
            cut_events(folder, run.step)
        for reason in found.refused if found else ():
            run.add_event(Event(run.step, "damaged", reason))
            reporter.note(f"{reason}; the checkpoint of step {run.step} is taken instead")
        return run

    def train_step(self) -> tuple[Metrics, str | None]:
        """Take the next step, or skip it; return what was measured, and why it was skipped.

        Raises:
            TrainingError: more than `max_skipped` steps in a row were skipped.
        """
        config = self.config
        started = time.perf_counter()
        inputs, targets = next(self.loader)
        self.waited = time.perf_counter() - started
        factor = learning_rate_factor(
            self.step, config.total_steps, config.schedule, config.warmup, config.decay
        )
        set_learning_rate(self.optimizers, factor)
        loss_now = self._backward(inputs, targets)
        with self.ranks.together() if self.sharded else nullcontext():
            clip_as_cut = clip_sharded if self.sharded else clip
            norm_now = float(clip_as_cut(self.model, config.grad_clip))
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
        )
        return row, objection

    def _backward(self, inputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Add up the gradients of all microbatches, in their order; return the batch's loss.

        Microbatch m of M has the rows m, m + M, m + 2M… of the batch. Rank r of W has the rows r
        modulo W of it, so that its k-th part of M / W is microbatch k·W + r.
        """
        ranks = self.ranks
        parts = self.config.microbatches // ranks.world_size
        count = sum(int(n) for (n,) in ranks.gather([float((targets != IGNORED).sum())]))
        sums = OrderedSum(ranks, uncut(self.model))
        losses, own = [], self.waited
        for module in self.sharded:
            module.clear()
        for part in range(parts):
            begun = time.perf_counter()
            with ranks.together() if self.sharded else nullcontext():
                if self.sharded:  # what comes next is the sum with this, not to be added to it
                    self.model.zero_grad(set_to_none=True)
                loss = mean_nats(self.model, inputs[part::parts], targets[part::parts], count)
                torch.autograd.backward(loss)
            losses.append(float(loss.detach()))
            own += time.perf_counter() - begun
            sums.add()
        sums.finish()
        found = ranks.gather([own, self.waited, *losses])
        if ranks.world_size > 1:
            self.rank_times.add([row[:2] for row in found])
        # From 0.0, one by one: `sum` and numpy would take other ways.
        total = 0.0
        for of_ranks in zip(*(row[2:] for row in found), strict=True):
            for value in of_ranks:
                total += value
        return total

    def evaluate(self, documents: Documents) -> Evaluation:
        """Score documents, each rank its share of the batches."""
        length = self.config.sequence_length
        if not self.sharded:
            return evaluate(self.model, documents, length, self.device, self.ranks)
        with self.ranks.together():  # every rank needs the others for each batch
            found = evaluate(self.model, documents, length, self.device)
        reshard(self.model)
        return found

    @property
    def flops_per_token(self) -> int:
        """Model FLOPs of training on one token."""
        config = self.config
        return flops_per_token(config.model, len(self.model.embedding), config.sequence_length)

    def add_event(self, event: Event) -> None:
        """Append an event to the run's file, on the first rank."""
        if self.ranks.first:
            add_event(self.folder, event)

    def save(self) -> Checkpoint | None:
        """Write the checkpoint of this step on the first rank, once all agree on the weights.

        Raises:
            TrainingError: it cannot be written, or a rank's weights are not those of the others.
        """
        if not self.sharded:
            check_replicas(self.ranks, self.model, self.step)
        with self.ranks.together() if self.sharded else nullcontext():
            model = whole(self.model.state_dict())
            optimizers = [whole(optimizer.state_dict()) for optimizer in self.optimizers]
        if not self.ranks.first:
            return None
        state = {
            "step": self.step,
            "model": model,
            "optimizers": optimizers,
            "loader": self.loader.state(),
            "rng": _rng_state(self.device),
            "history": msgspec.to_builtins(self.history),
        }
        keep = self.config.keep_checkpoints
        return save_checkpoint(self.folder, self.key, self.step, state, self.times, keep)

    def _restore(self, checkpoint: Checkpoint, state: dict[str, Any]) -> None:
        self.step, self.times, self.resumed = checkpoint.step, checkpoint.times, checkpoint
        of_model = self.model.state_dict()
        self.model.load_state_dict({k: cut_like(v, of_model[k]) for k, v in state["model"].items()})
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(cut_optimizer(saved, optimizer))
        self.loader.load_state(state["loader"])
        torch.set_rng_state(state["rng"]["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["rng"]["cuda"], self.device)
        self.history = msgspec.convert(state["history"], History)

    def open_metrics(self, reporter: Reporter) -> IO[bytes]:
        """Open the metrics for appending, cut back to the step that the run goes on from."""
        if not self.ranks.first:
            return Path(os.devnull).open("wb")
        rows = read_metrics(self.folder, self.step)
        lost = self.step - self.history.skipped - len(rows)
        if lost:
            reporter.note(
                f"{self.folder / METRICS} lacks {lost} of the first {self.step} steps; the result"
                " does not need them"
            )
        lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        write_atomic(self.folder / METRICS, lines)
        return (self.folder / METRICS).open("ab")


def clip(model: nn.Module, limit: float) -> torch.Tensor:
    """Scale gradients to a total norm of at most `limit` (0: leave them); return the old norm."""
    return nn.utils.clip_grad_norm_(model.parameters(), limit or float("inf"), foreach=True)


def _loader(view: TokenView, config: TrainConfig, ranks: Ranks = ALONE) -> Loader:
    return Loader(
        view,
        sequence_length=config.sequence_length,
        batch_size=config.batch_size,
        seed=config.seed,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )


def _finish(
    run: _Run, view: TokenView, valid: Documents, evaluation: Evaluation, saved: Checkpoint
) -> RunRecord:
    """Fit the baselines to what the run read and write the record, last of all."""
    config, vocabulary = run.config, view.dataset.vocab_size
    previous, tokens = pairs_read(_loader(view, config), config.total_steps * config.batch_size)
    history = run.history
    trained = config.total_steps * config.batch_tokens
    record = RunRecord(
        run_key=run.key,
        dataset_id=view.dataset.dataset_id,
        select=view.expression,
        selection_hash=view.selection_hash,
        valid_hash=valid.digest(),
        seed=config.seed,
        config=config,
        definitions=DEFINITIONS,
        device=run.device.type,
        parameters=parameter_count(config.model, vocabulary),
        flops_per_token=flops_per_token(config.model, vocabulary, config.sequence_length),
        steps=config.total_steps,
        tokens=trained,
        unique_tokens=len(tokens),
        available_tokens=view.tokens,
        epochs=trained / view.tokens,
        bpb=evaluation.bpb,
        by_source=evaluation.by_source(),
        curve=history.curve,
        curve_documents=len(valid.head(config.curve_tokens)),
        baselines=fit_and_score(previous, tokens, valid, vocabulary),
        valid_sha256=write_valid(run.folder, evaluation.bits, evaluation.bytes),
        checkpoint_sha256=saved.sha256,
        facts={
            "seconds": run.times.seconds,
            "tokens_per_s": trained / run.times.seconds,
            "wait_share": run.times.wait_seconds / run.times.seconds,
            "mfu": utilisation(config, vocabulary, trained / run.times.seconds, run.device),
            "skipped_steps": history.skipped,
            "peak_memory_bytes": _peak_memory_bytes(run.device),
            "torch": str(torch.__version__),
            "ranks": run.rank_times.facts(),
        },
    )
    prune_checkpoints(run.folder, run.key, keep=1)
    write_record(run.folder / RUN, record)
    return record


def _make_deterministic(config: TrainConfig) -> None:
    """Fix what would make two equal runs differ: thread count, kernels that race, random state."""
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling every new tensor would only hide reads of unset memory, at a cost in every step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(config.seed)


def _rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory that torch had on the GPU, or this process on the CPU, so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
