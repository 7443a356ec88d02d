"""One training run, from its first step to `run.json`, with stops anywhere in between.

Given the same settings, data and device, a run gives the same weights bit for bit, stopped and
resumed or not: weights, optimisers, loader and random state are in the checkpoint, and the number
of CPU threads belongs to the settings. `run.json` holds a hash of all that decides the result (the
run key), so a finished run is not run again, and a run of something else is never resumed.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from trainer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from trainer.config import DEFINITIONS, TrainConfig
from trainer.data import Documents
from trainer.evaluate import Evaluation, evaluate
from trainer.memory import keep_freed_memory
from trainer.model import Transformer, flops_per_token, mean_nats, parameter_count
from trainer.optim import build_optimizers, learning_rate_factor, set_learning_rate
from trainer.progress import Reporter
from trainer.records import (
    METRICS,
    RUN,
    Metrics,
    RunRecord,
    curve_of,
    read_metrics,
    read_record,
    write_record,
    write_valid,
)


def run_key(view: TokenView, valid: Documents, config: TrainConfig) -> str:
    """Return the hash of everything that decides the result of a run."""
    settings = msgspec.to_builtins(config)
    del settings["checkpoint_every"]  # changes what can be resumed, not the result
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
        TrainingError: no data, or the loss or a gradient is no longer finite.
        CorruptError: a data block or the checkpoint does not match its hash.
        KeyboardInterrupt: SIGINT or SIGTERM came; the checkpoint is written.
    """
    key = run_key(view, valid, config)
    record = finished(folder, key)
    if record:
        reporter.skipped(name, record.bpb)
        return record
    (folder / RUN).unlink(missing_ok=True)
    keep_freed_memory()
    run = _Run.begin(view, config, folder, key)
    curve_documents = valid.head(config.curve_tokens)
    reporter.start(name, config.total_steps, run.step)
    with run.loader, run.open_metrics() as metrics, _stop_signals() as stop:
        saved: Checkpoint | None = None
        while run.step < config.total_steps:
            saved = None
            row = run.train_step()
            if _due(run.step, config.eval_every, config.total_steps):
                on_curve = evaluate(run.model, curve_documents, config.sequence_length, run.device)
                row = msgspec.structs.replace(row, valid_bpb=on_curve.bpb)
                reporter.evaluated(on_curve.bpb)
            metrics.write(msgspec.json.encode(row) + b"\n")
            metrics.flush()
            reporter.step(run.step, row.loss, row.tokens_per_s)
            if stop.is_set() or _due(run.step, config.checkpoint_every, config.total_steps):
                saved = run.save()
            if stop.is_set():
                raise KeyboardInterrupt
    evaluation = evaluate(run.model, valid, config.sequence_length, run.device)
    return _finish(run, view, valid, evaluation, saved or run.save())


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
    step: int = 0

    @classmethod
    def begin(cls, view: TokenView, config: TrainConfig, folder: Path, key: str) -> "_Run":
        """Make a run at its first step, or at its checkpoint's where there is one."""
        device = choose_device(config)
        _make_deterministic(config)
        model = Transformer(config.model, view.dataset.vocab_size, config.sequence_length)
        model.initialise(config.seed)
        model.to(device)
        loader = TorchLoader(_loader(view, config), device)
        run = cls(config, folder, key, device, model, build_optimizers(model, config), loader)
        found = load_checkpoint(folder, key)
        if found:
            run._restore(*found)
        return run

    def train_step(self) -> Metrics:
        """Take the next step; return what was measured."""
        config = self.config
        started = time.perf_counter()
        inputs, targets = next(self.loader)
        waited = time.perf_counter() - started
        factor = learning_rate_factor(
            self.step, config.total_steps, config.schedule, config.warmup, config.decay
        )
        set_learning_rate(self.optimizers, factor)
        loss = mean_nats(self.model, inputs, targets)
        torch.autograd.backward(loss)
        norm = clip(self.model, config.grad_clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        loss_now, norm_now = float(loss.detach()), float(norm)
        self.step += 1
        if not (abs(loss_now) < float("inf") and norm_now < float("inf")):
            raise TrainingError(
                f"{self.folder}: step {self.step}: loss {loss_now}, gradient norm {norm_now}: not"
                f" finite; lower train.learning_rate (now {config.learning_rate}) or"
                f" train.embedding_learning_rate (now {config.embedding_learning_rate})"
            )
        seconds = time.perf_counter() - started
        return Metrics(
            step=self.step,
            tokens=self.step * config.batch_tokens,
            loss=loss_now,
            lr=config.learning_rate * factor,
            grad_norm=norm_now,
            seconds=seconds,
            tokens_per_s=config.batch_tokens / seconds,
            wait_share=waited / seconds,
        )

    def save(self) -> Checkpoint:
        """Write the checkpoint of this step."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "loader": self.loader.state(),
            "rng": _rng_state(self.device),
        }
        return save_checkpoint(self.folder, self.key, self.step, state)

    def _restore(self, checkpoint: Checkpoint, state: dict[str, Any]) -> None:
        self.step = checkpoint.step
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.loader.load_state(state["loader"])
        torch.set_rng_state(state["rng"]["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["rng"]["cuda"], self.device)

    def open_metrics(self) -> IO[bytes]:
        """Open the metrics for appending, cut back to the step that the run goes on from."""
        rows = read_metrics(self.folder, self.step)
        lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        write_atomic(self.folder / METRICS, lines)
        return (self.folder / METRICS).open("ab")


def clip(model: nn.Module, limit: float) -> torch.Tensor:
    """Scale gradients to a total norm of at most `limit` (0: leave them); return the old norm."""
    return nn.utils.clip_grad_norm_(model.parameters(), limit or float("inf"), foreach=True)


def _loader(view: TokenView, config: TrainConfig) -> Loader:
    return Loader(
        view,
        sequence_length=config.sequence_length,
        batch_size=config.batch_size,
        seed=config.seed,
    )


def _finish(
    run: _Run, view: TokenView, valid: Documents, evaluation: Evaluation, saved: Checkpoint
) -> RunRecord:
    """Fit the baselines to what the run read and write the record, last of all."""
    config, vocabulary = run.config, view.dataset.vocab_size
    previous, tokens = pairs_read(_loader(view, config), config.total_steps * config.batch_size)
    rows = read_metrics(run.folder, config.total_steps)
    seconds = sum(row.seconds for row in rows)
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
        curve=curve_of(rows),
        curve_documents=len(valid.head(config.curve_tokens)),
        baselines=fit_and_score(previous, tokens, valid, vocabulary),
        valid_sha256=write_valid(run.folder, evaluation.bits, evaluation.bytes),
        checkpoint_sha256=saved.sha256,
        facts={
            "seconds": seconds,
            "tokens_per_s": trained / seconds,
            "wait_share": sum(row.wait_share * row.seconds for row in rows) / seconds,
            "torch": str(torch.__version__),
        },
    )
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


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Turn SIGINT and SIGTERM into an event that is looked at between steps.

    A second signal gets the handler from before, so that nobody has to wait. Signals belong to the
    main thread; elsewhere (a test, a notebook) the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(number: int, frame: Any) -> None:
        stop.set()
        restore()

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        restore()
