"""One training run, from its first step to `run.json`, with stops anywhere in between.

Given the same settings, data and device, a run gives the same weights bit for bit, stopped and
resumed or not: weights, optimisers, loader and random state are in the checkpoint, and the number
of CPU threads belongs to the settings. `run.json` holds a hash of all that decides the result (the
run key), so a finished run is not run again, and a run of something else is never resumed.
"""

import math
import signal
from contextlib import nullcontext
from pathlib import Path

import msgspec
import torch

from shards.dataset import TokenView
from shards.errors import TrainingError
from shards.hashing import stable_hash
from trainer.aside import is_aside, make_room
from trainer.baselines import fit_and_score, pairs_read
from trainer.begun import deciding, definitions_of, places_of
from trainer.checkpoint import Checkpoint, prune_checkpoints
from trainer.config import TrainConfig
from trainer.data import Documents
from trainer.device import (
    choose_device,
    peak_memory_bytes,
)
from trainer.evaluate import Evaluation
from trainer.events import Event, append_line, room_for
from trainer.folder import claim
from trainer.memory import prepare_memory
from trainer.monitor import Values, open_monitor
from trainer.parallel import is_orphan
from trainer.progress import Reporter
from trainer.ranks import ALONE, Ranks
from trainer.records import (
    METRICS,
    RUN,
    VALID,
    Metrics,
    RunRecord,
    read_run,
    sealed,
    write_record,
    write_valid,
)
from trainer.replicas import check_replicas
from trainer.run import Run, batches_of
from trainer.signals import NOT_BEGUN, StopFlag, Stopped, stop_signals
from trainer.sizes import flops_per_token, parameter_count


def run_key(view: TokenView, valid: Documents, config: TrainConfig) -> str:
    """Return the hash of everything that decides the result of a run."""
    return stable_hash(
        {
            "config": deciding(config) | {"device": choose_device(config).type},
            "dataset": view.dataset.dataset_id,
            "selection": view.selection_hash,
            "valid": valid.digest(),
            "definitions": definitions_of(config),
        }
    )


def finished(folder: Path, key: str) -> RunRecord | None:
    """Return the record of a finished run with this key, if `folder` holds it."""
    path = folder / RUN
    return read_run(path, key) if path.exists() else None


def recalled(folder: Path, key: str, config: TrainConfig) -> RunRecord | None:
    """Return what `finished` does, after bringing back a run that another one took the place of.

    The other one is put aside in turn.

    Raises:
        TrainingError: another process is at work in the folder.
    """
    if (record := finished(folder, key)) or not is_aside(folder, key):
        return record
    with claim(folder):
        make_room(folder, key, config)
    return finished(folder, key)


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
        folder: where the run's files go; another run's files there are replaced, or put aside if
            this one was put aside for them.
        reporter: shows progress under `name`.

    Raises:
        RecipeError: the folder cannot be made or written to.
        TrainingError: no data, too many steps in a row whose loss or gradient is not finite or
            spikes, a full disk, or another process is at work in the folder.
        CorruptError: a data block, or every checkpoint, does not match its hash.
        Stopped: SIGTERM or SIGUSR1 came, or the study that started this process is gone; what was
            trained is in a checkpoint.
        KeyboardInterrupt: SIGINT came; likewise.
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
    stop: StopFlag | None = None,
    *,
    keep_others: bool = False,
) -> RunRecord | None:
    """Train one model as one of `ranks`: `train`, whose record only the first rank returns.

    Only the first rank reads and writes `folder`; the result does not depend on how many there are.

    With `keep_others`, or if this run itself was put aside there, another run's files are put aside
    (`make_room`), not replaced.

    Signals are those of `stop`, and are handled here if it is not given. One process raises them at
    once where no step is under way; a rank notes them until all can stop together.

    Raises:
        TrainingError: also when a rank is gone or hangs, or its weights or its settings are not
            those of the others; names the rank.
    """
    key = run_key(view, valid, config)
    with nullcontext(stop) if stop else stop_signals(NOT_BEGUN) as flag:
        if ranks.world_size > 1:
            flag.note()
        _check_same(ranks, key)
        record = ranks.share(finished(folder, key) if ranks.first else None)
        if record is None:
            with claim(folder) if ranks.first else nullcontext():
                if ranks.first and (keep_others or is_aside(folder, key)):
                    make_room(folder, key, config)
                # by the process that this one waited for
                record = ranks.share(finished(folder, key) if ranks.first else None)
                if record is None:
                    return _train(view, valid, config, folder, key, reporter, ranks, name, flag)
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
    stop: StopFlag,
) -> RunRecord | None:
    if ranks.first:
        (folder / RUN).unlink(missing_ok=True)
    prepare_memory()
    run = Run.begin(view, config, folder, key, reporter, ranks)
    stop.note()
    curve_documents = valid.head(config.curve_tokens)
    reporter.start(name, config.total_steps, run.step)
    with (
        run.loader,
        run.saver,
        run.open_metrics(reporter) as metrics,
        open_monitor(config, folder, reporter.note, first=ranks.first) as monitor,
    ):
        _stop_if(run, _agree(ranks, stop.signal), name, NOT_BEGUN)
        while run.step < config.total_steps:
            row, objection = run.train_step()
            back_to = run.roll_back() if objection and is_spike(row) else None
            if _due(run.step, config.eval_every, config.total_steps):
                on_curve = run.evaluate(curve_documents)
                row = _with_validation(row, on_curve)
                reporter.evaluated(on_curve.bpb)
            run.history.add(row)
            run.times.add(row)
            if objection:
                if back_to is not None:
                    objection += f"; back to the weights of step {back_to}"
                run.add_event(Event(run.step, "rolled_back" if back_to else "skipped", objection))
                reporter.note(f"{name}: step {run.step} skipped: {objection}")
            else:
                with room_for(folder / METRICS, run.step):
                    append_line(metrics, msgspec.json.encode(row))
            if monitor.active:
                monitor.update(run.step, _monitored(run, row))
            reporter.measured(row)
            reporter.step(run.step, row.loss, row.tokens_per_s)
            if slow := run.rank_times.report():
                reporter.note(f"{name}: step {run.step}: {slow}")
            number = _asked(ranks, stop)
            if not run.sharded and _due(run.step, config.replica_check_every, config.total_steps):
                check_replicas(ranks, run.model, run.step)
            _save_or_stop(run, number, name)
    where = f"after the last of {run.step} steps: their checkpoint is written"
    evaluation = run.evaluate(
        valid, lambda: _stop_if(run, _asked(ranks, stop), name, f"in the validation {where}")
    )
    # The last step is always saved, and a run that has no step left was resumed from there.
    saved = run.saver.last or run.resumed
    if not (ranks.first and saved):
        return None
    try:
        stop.at_once(where)  # the other ranks are done
        return _finish(run, view, valid, evaluation, saved)
    except Stopped:
        if not (folder / RUN).exists():
            run.add_event(Event(run.step, "stopped", stop.name))
        raise


def _with_validation(row: Metrics, found: Evaluation) -> Metrics:
    return msgspec.structs.replace(row, valid_bpb=found.bpb, valid_by_source=found.by_source())


def _monitored(run: Run, row: Metrics) -> Values:
    """Return the numbers of a step for a monitor."""
    numbers = {
        "step": row.step,
        "tokens": row.tokens,
        "loss": row.loss,
        "grad_norm": row.grad_norm,
        "learning_rate": row.lr,
        "tokens_per_s": row.tokens_per_s,
        "mfu": row.mfu,
        "wait_share": row.wait_share,
        "valid_bpb": row.valid_bpb,
        "memory_bytes": row.memory_bytes,
        "skipped_steps": run.history.skipped,
    }
    values: Values = {(k, ()): float(number) for k, number in numbers.items() if number is not None}
    for source, bpb in (row.valid_by_source or {}).items():
        values["valid_bpb_by_source", (("source", source),)] = bpb
    for rank, times in enumerate(run.rank_times.facts()):
        for name, number in times.items():
            values[f"rank_{name}", (("rank", str(rank)),)] = number
    return values


def _save_or_stop(run: Run, number: signal.Signals | None, name: str) -> None:
    """Begin the checkpoint that is due; at a signal see it written and raise.

    Raises:
        TrainingError: a checkpoint could not be written, be it the one before.
        Stopped, KeyboardInterrupt: the signal.
    """
    config = run.config
    if number or _due(run.step, config.checkpoint_every, config.total_steps):
        run.save()
    run.saver.check()
    if number or run.step == config.total_steps:
        run.saver.finish()
    at = f"at step {run.step} of {config.total_steps}: the checkpoint is written"
    _stop_if(run, number, name, at)


def _stop_if(run: Run, number: signal.Signals | None, name: str, where: str) -> None:
    """Raise a signal that came to any rank, on all of them; the run's events say it first."""
    if number:
        run.add_event(Event(run.step, "stopped", number.name))
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if number:
        raise Stopped(f"{name}: {number.name} {where}")


def _asked(ranks: Ranks, stop: StopFlag) -> signal.Signals | None:
    """Return the signal that came to any rank; a study that is gone counts as SIGTERM."""
    return _agree(ranks, signal.SIGTERM if is_orphan() else stop.signal)


def _agree(ranks: Ranks, number: signal.Signals | None) -> signal.Signals | None:
    """Return a signal that came to any rank, the same one on all, so that all stop together."""
    highest = max(value for (value,) in ranks.gather([float(number or 0)]))
    return signal.Signals(int(highest)) if highest else None


def is_spike(row: Metrics) -> bool:
    """Whether a step that was not taken was one for its height and not for being no number."""
    return math.isfinite(row.loss) and math.isfinite(row.grad_norm)


def _due(step: int, every: int, last: int) -> bool:
    return step == last or (every > 0 and step % every == 0)


def _finish(
    run: Run, view: TokenView, valid: Documents, evaluation: Evaluation, saved: Checkpoint
) -> RunRecord:
    """Fit the baselines to what the run read and write the record, last of all."""
    config, vocabulary = run.config, view.dataset.vocab_size
    previous, tokens = pairs_read(batches_of(view, config), config.total_steps * config.batch_size)
    with room_for(run.folder / VALID, run.step):
        valid_sha256 = write_valid(run.folder, evaluation.bits, evaluation.bytes)
    history = run.history
    trained = config.total_steps * config.batch_tokens
    unsealed = RunRecord(
        run_key=run.key,
        dataset_id=view.dataset.dataset_id,
        tokenizer_sha256=view.dataset.metadata.tokenizer_sha256,
        select=view.expression,
        draw=view.draw,
        selection_hash=view.selection_hash,
        valid_hash=valid.digest(),
        seed=config.seed,
        config=config,
        definitions=definitions_of(config),
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
        valid_sha256=valid_sha256,
        checkpoint_sha256=saved.sha256,
        facts=places_of(view, run.ranks.world_size)
        | {
            "seconds": run.times.seconds,
            "cpu_seconds": run.count_cpu(),  # of the first rank
            "tokens_per_s": trained / run.times.seconds,
            "wait_share": run.times.wait_seconds / run.times.seconds,
            "mfu": run.utilisation(trained / run.times.seconds),
            "mfu_peak": run.peak._asdict(),
            "skipped_steps": history.skipped,
            "undone_steps": history.undone,
            "checkpoint_wait_s": run.saver.blocked_seconds,
            "peak_memory_bytes": peak_memory_bytes(run.device),
            "torch": str(torch.__version__),
            "ranks": run.rank_times.facts(),
        },
    )
    record = sealed(unsealed)
    prune_checkpoints(run.folder, run.key, keep=1)
    with room_for(run.folder / RUN, run.step):
        write_record(run.folder / RUN, record)
    return record
