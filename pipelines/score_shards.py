"""Scored shards one by one: what a worker of the score job does with a shard number.

Shard i of the result is shard i of the tokens dataset with one more column. The model runs in a
process of its own (`python -m trainer.score_worker`), since Beam and torch never share one.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, NoReturn

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

import shards.errors
from pipelines import files
from pipelines.beam import beam
from pipelines.commit import shard_path, uncommit
from pipelines.context import Context
from pipelines.progress import ProgressLog
from pipelines.sidecars import read_result, write_result
from shards.errors import AssayError, CorruptError, PlatformError, RecipeError
from shards.hashing import BLOCK_BYTES, block_hashes
from shards.manifest import ShardEntry, remedy
from shards.tokens import TokenMetadata, encode_token_shard, shard_entry

SLICE_TOKENS = 1 << 18
"""Tokens that the model is sent at a time: some seconds of a small model on one core."""


class ScoreContext(Context, frozen=True):
    """What a worker needs: `entries[i]` is shard i of the tokens dataset `data`.

    `kind` says how that was made (see `shards.manifest.made_as`).
    """

    data: str
    kind: str
    out: str
    entries: list[ShardEntry]
    tokenizer: TokenMetadata
    column: str
    command: list[str]
    results: str
    progress: str

    @property
    def home(self) -> str:
        """The folder of sidecars."""
        return self.results


class ScoreResult(msgspec.Struct, frozen=True):
    """Sidecar of a finished shard; `bits` are whole for each document, so that sums are exact."""

    entry: ShardEntry
    documents: int
    bytes: int
    bits: int


class ModelProcess:
    """A process with a model that answers batches of documents; `close` ends it."""

    def __init__(self, command: list[str], schema: pa.Schema) -> None:
        """Start `command`; its stdin gets an Arrow IPC stream of `schema`."""
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        # Idle OpenMP threads sleep, and there is one anyway: workers must not fight for cores.
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
        )
        self._schema = schema
        self._writer: pa.RecordBatchStreamWriter | None = None

    def score(self, batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
        """Return float32[n] for a batch of n documents with the columns of the schema.

        Raises:
            AssayError: one raised in the process, with its own type and message.
            PlatformError: the process died.
        """
        requests, answers = self._process.stdin, self._process.stdout
        if requests is None or answers is None:
            raise PlatformError("the model's process has no pipes; this is a bug in Assay")
        try:
            if self._writer is None:
                self._writer = pa.ipc.new_stream(requests, self._schema)
            self._writer.write_batch(batch)
            requests.flush()
        except OSError:  # it is gone
            self._fail()
        data = answers.read(4 * len(batch))
        if len(data) < 4 * len(batch):
            self._fail()
        return np.frombuffer(data, np.float32)

    def _fail(self) -> NoReturn:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines() or [""]
        found = re.fullmatch(r"(\w+Error): (.+)", lines[-1])
        type_ = getattr(shards.errors, found[1], None) if found else None
        if found and isinstance(type_, type) and issubclass(type_, AssayError):
            raise type_(found[2])
        raise PlatformError(
            f"the model's process ended with exit code {code}: {lines[-1] or 'it said nothing'};"
            " out of memory, or killed: run again and it resumes, with fewer --workers if memory is"
            " short"
        )

    def close(self) -> None:
        """End the process, by the end of its stdin."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._process.wait()
        self._errors.close()


class ScoreShards(beam.DoFn):
    """Write the scored shard of each number, unless it stands already; emits the number.

    The dataset that was in the folder ends with the first shard that is written, and that is not
    before the model has answered: what cannot be scored, for want of a GPU or with a damaged
    checkpoint, costs no dataset.
    """

    def __init__(self, context: ScoreContext) -> None:
        self._context = context

    def setup(self) -> None:
        self._log = ProgressLog(self._context.progress)
        self._model: ModelProcess | None = None

    def process(self, shard: int) -> Iterator[int]:
        result = read_result(self._context, shard, ScoreResult)
        if result is None:
            result = self._write(shard)
            write_result(self._context, shard, result)
        else:
            self._log.add(result.bytes, result.documents)
        yield shard

    def teardown(self) -> None:
        if self._model is not None:
            self._model.close()
            self._model = None

    def _write(self, shard: int) -> ScoreResult:
        context, entry = self._context, self._context.entries[shard]
        batch = read_batch(files.read_bytes(shard_path(context.data, entry)), entry, context.kind)
        check_column(context.column, batch.schema.names)
        sizes = np.asarray(batch.column("bytes"))
        values = self._score(batch)
        data = encode_token_shard(
            pa.table(batch).append_column(context.column, pa.array(values)), context.tokenizer
        )
        scored = shard_entry(
            entry.path,
            data,
            documents=entry.documents,
            tokens=entry.tokens,
            first_token=entry.first_token,
        )
        uncommit(context.out)  # from here on the folder is not the old dataset any more
        files.write_atomic(shard_path(context.out, scored), data)
        bits = np.rint(values.astype(np.float64) * sizes)
        return ScoreResult(scored, len(batch), int(sizes.sum()), int(bits.sum()))

    def _score(self, batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
        wanted = batch.select(["bytes", "tokens"])
        eos = str(self._context.tokenizer.eos_id)
        wanted = wanted.replace_schema_metadata({"eos_id": eos})
        if self._model is None:  # only now: a job that finds everything done needs no model
            self._model = ModelProcess(self._context.command, wanted.schema)
            if not len(batch):  # no document will show whether it works
                rows = {"bytes": [1], "tokens": [[self._context.tokenizer.eos_id]]}
                self._model.score(pa.record_batch(rows, schema=wanted.schema))
        parts = [np.zeros(0, np.float32)]
        for first, end in slices(np.asarray(batch.column("tokens").offsets)):
            documents = wanted.slice(first, end - first)
            parts.append(self._model.score(documents))
            self._log.add(int(np.asarray(documents.column("bytes")).sum()), len(documents))
        return np.concatenate(parts)


def slices(offsets: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Cut documents into runs [first, end) of at most `SLICE_TOKENS` tokens, but one at least.

    Args:
        offsets: int64[n + 1], where documents begin and end in the token stream.
    """
    found = []
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + SLICE_TOKENS, side="right")) - 1
        end = max(last, first + 1)
        found.append((first, end))
        first = end
    return found


def read_batch(data: bytes, entry: ShardEntry, kind: str = "tokens") -> pa.RecordBatch:
    """Decode a token shard whose bytes are `data`, checked against its manifest entry.

    `kind` says how its dataset was made, for error messages.

    Raises:
        CorruptError: the bytes do not match the recorded hashes, or are no token shard.
    """
    for number, (found, stated) in enumerate(zip(block_hashes(data), entry.blocks, strict=False)):
        if found != stated:
            raise CorruptError(
                f"{entry.path}: block {number} (bytes from {number * BLOCK_BYTES}): expected"
                f" xxh3-128 {stated}, found {found}; {remedy(kind)}"
            )
    if len(data) != entry.bytes:
        raise CorruptError(
            f"{entry.path}: {len(data)} bytes, the manifest states {entry.bytes}; {remedy(kind)}"
        )
    try:
        reader = pa.ipc.open_file(pa.BufferReader(data))
        if reader.num_record_batches != 1:
            raise CorruptError(f"{entry.path}: {reader.num_record_batches} batches, expected 1")
        return reader.get_batch(0)
    except pa.ArrowInvalid as error:
        raise CorruptError(f"{entry.path}: not a token shard: {error}") from None


def column_names(data: str, entry: ShardEntry) -> list[str]:
    """Return the columns of a token shard of the dataset `data`; none where it is damaged.

    Who reads all of the shard says what the damage is.
    """
    with files.open_file(shard_path(data, entry)) as file:
        try:
            return list(pa.ipc.open_file(file).schema.names)
        except (pa.ArrowInvalid, OSError):
            return []


def check_column(column: str, names: list[str]) -> None:
    """Check that the dataset has no column of this name.

    Raises:
        RecipeError: it has.
    """
    if column in names:
        raise RecipeError(
            f"the data has a column {column!r} already; give another name with --column, or score"
            " the dataset that it was made from"
        )


def worker_command(run: str, device: str) -> list[str]:
    """Return the command of a process with the model of a finished run."""
    return [sys.executable, "-m", "trainer.score_worker", run, "--device", device]
