"""`python -m trainer.score_worker RUN`: a process that scores documents sent through its stdin.

Beam and torch never share a process, so the `assay score` job starts one of these for each of its
workers and sends it batches of documents. It loads the model once.

stdin: one Arrow IPC stream, with the schema metadata `eos_id`, of batches with the columns
`bytes: int64` (raw UTF-8) and `tokens: large_list<uint16|uint32>` (n rows). For each batch n
float32 values in native byte order go to stdout. It ends with its stdin, so that no process is left
over when the one that asks is killed. An error that Assay raises on purpose is the last line of
stderr, `Type: message`, and the exit code is not 0.
"""

import os
import sys
from pathlib import Path
from typing import IO

import click
import numpy as np
import pyarrow as pa
import torch

from shards.errors import AssayError, DatasetError
from trainer.data import Documents
from trainer.memory import prepare_memory
from trainer.score import TrainedModel, lm_bpb, load_model


def answer(trained: TrainedModel, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Score every batch of the stream `requests`, and write each answer before the next is read.

    Raises:
        DatasetError: the tokens do not fit the model's vocabulary.
        TrainingError: see `lm_bpb`.
    """
    with pa.ipc.open_stream(requests) as stream:
        eos = int(stream.schema.metadata[b"eos_id"])
        for batch in stream:
            documents = decode_documents(batch, eos)
            top = int(documents.tokens.max(initial=0))
            if max(top, eos) >= trained.vocabulary:
                raise DatasetError(
                    f"token id {max(top, eos)} does not fit the model's vocabulary of"
                    f" {trained.vocabulary}: the data was made with another tokenizer"
                )
            answers.write(lm_bpb(trained, documents).tobytes())
            answers.flush()


def decode_documents(batch: pa.RecordBatch, eos: int) -> Documents:
    """Return the documents of a batch with the columns `bytes` and `tokens`."""
    column = batch.column("tokens")
    offsets = np.asarray(column.offsets, np.int64)
    return Documents(
        tokens=np.asarray(column.flatten()),
        offsets=offsets - offsets[0],
        bytes=np.asarray(batch.column("bytes"), np.int64),
        source=np.zeros(len(batch), np.int64),
        sources=("",),
        eos=eos,
    )


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--device", type=click.Choice(["cpu", "cuda"]), required=True)
def main(run: Path, device: str) -> None:
    """Score documents from stdin with the model of RUN."""
    # What a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # The job has a worker for each core, and sums in several threads would follow their number.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    prepare_memory()
    try:
        answer(load_model(run, device), sys.stdin.buffer, answers)
    except AssayError as error:
        message = " ".join(str(error).split())
        sys.stderr.write(f"{type(error).__name__}: {message}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
