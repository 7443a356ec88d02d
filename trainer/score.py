"""Bits per byte of documents under a finished run's model: `lm_bpb`.

lm_bpb = Σ −ln p(token) over all tokens of the document, EOS included / (ln 2 · raw UTF-8 bytes).
The bytes are those of the text before it was tokenized. A document stands alone: its first token is
predicted from EOS. One longer than the context is read in the windows of `trainer.evaluate`: every
token is a target exactly once, and past the first window it has a quarter of the context or more
before it.

A document's value depends on no other document and not on padding, up to the rounding of float32
products (relative differences of about 1e-6 between batches of different shapes). So that equal
data gives equal bytes, callers cut documents into batches by a rule that looks at nothing else, and
one CPU thread does the sums.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from shards.errors import TrainingError
from trainer.data import Documents
from trainer.evaluate import evaluate
from trainer.model import Transformer
from trainer.trained import load_trained


@dataclass(frozen=True)
class TrainedModel:
    """A finished run's model, ready to score; `length` is its context in tokens."""

    model: Transformer
    length: int
    vocabulary: int
    device: torch.device


def load_model(run: Path, device: str) -> TrainedModel:
    """Load the model of a finished run; its checkpoint is verified first.

    Args:
        run: the run's folder.
        device: "cpu" or "cuda".

    Raises:
        DatasetError: `run` is not the folder of a finished run, or its checkpoint is gone.
        CorruptError: the record or the checkpoint is not as it was written.
        TrainingError: there is no such device here.
    """
    record, state = load_trained(run)
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: torch sees no GPU here; use --device cpu")
    vocabulary, length = len(state["embedding"]), record.config.sequence_length
    model = Transformer(record.config.model, vocabulary, length)
    model.load_state_dict(state)
    place = torch.device(device)
    return TrainedModel(model.to(place).eval(), length, vocabulary, place)


def lm_bpb(trained: TrainedModel, documents: Documents) -> npt.NDArray[np.float32]:
    """Return the bits per byte of each document, `float32[n]`; 0 for a text of no bytes.

    Raises:
        TrainingError: the model gives no finite number for a document.
    """
    found = evaluate(trained.model, documents, trained.length, trained.device)
    bpb = np.where(documents.bytes > 0, found.bits / np.maximum(documents.bytes, 1), 0.0)
    if not np.isfinite(bpb).all():
        row = int(np.argmin(np.isfinite(bpb)))
        raise TrainingError(
            f"the model gives {bpb[row]} bits per byte for document {row} of a batch of"
            f" {len(documents)}: its weights are not finite, or the text leads it astray; use"
            " another run"
        )
    return bpb.astype(np.float32)
