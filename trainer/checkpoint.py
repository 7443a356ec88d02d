"""Checkpoints that appear whole, and are verified before they are used.

`checkpoint.json` names the file and its sha256; it is replaced after the file is complete, and the
file before it is removed after that. So a killed run leaves the old checkpoint or the new one.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import msgspec
import torch

from shards.atomic import write_atomic
from shards.errors import CorruptError

CHECKPOINT = "checkpoint.json"


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The manifest of the one checkpoint of a run."""

    run_key: str
    step: int
    file: str
    bytes: int
    sha256: str


def save_checkpoint(folder: Path, run_key: str, step: int, state: dict[str, Any]) -> Checkpoint:
    """Replace a run's checkpoint by `state`: tensors, numbers, strings, lists and dicts."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getbuffer()
    entry = Checkpoint(
        run_key=run_key,
        step=step,
        file=f"checkpoint-{step:08d}.pt",
        bytes=data.nbytes,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    write_atomic(folder / entry.file, data)
    write_atomic(folder / CHECKPOINT, msgspec.json.format(msgspec.json.encode(entry)) + b"\n")
    for other in folder.glob("checkpoint-*.pt"):
        if other.name != entry.file:
            other.unlink()
    return entry


def load_checkpoint(folder: Path, run_key: str) -> tuple[Checkpoint, dict[str, Any]] | None:
    """Return a run's checkpoint, its tensors on the CPU; None if it has none or another run's.

    Raises:
        CorruptError: the files do not match their hash or cannot be read.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    advice = f"remove {folder} to start the run again from its first step"
    try:
        entry = msgspec.json.decode(path.read_bytes(), type=Checkpoint)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError(f"{path}: not a checkpoint's manifest ({error}); {advice}") from None
    if entry.run_key != run_key:
        return None
    file = folder / entry.file
    if not file.exists():
        raise CorruptError(f"{file}: is missing, though {CHECKPOINT} names it; {advice}")
    data = file.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != entry.sha256:
        raise CorruptError(f"{file}: expected sha256 {entry.sha256}, found {found}; {advice}")
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return entry, state
