"""Checkpoints that appear whole, are verified before they are used, and have a spare.

`checkpoint-NNNNNNNN.pt` is written first, then its manifest, the `.json` of the same name, with
size and sha256 of the file and an xxh3-128 of itself: the manifest makes the checkpoint. So a
killed run leaves a checkpoint or none, never a part of one. Any flipped bit, cut or missing file is
found (torch alone loads a file with a flipped weight without a word), and the checkpoint before it
is taken instead.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import msgspec
import torch

from shards.atomic import write_atomic
from shards.errors import CorruptError, TrainingError
from shards.hashing import xxh128
from trainer.history import Times

FORMAT = 2
_STEM = "checkpoint-"


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The manifest of one checkpoint; `check` is the xxh3-128 of itself with `check` empty.

    `times` are sums of seconds: here and not in the file, so that equal runs save equal states.
    """

    format: int = FORMAT
    run_key: str
    step: int
    file: str
    bytes: int
    sha256: str
    times: Times
    check: str = ""


class Found(msgspec.Struct, frozen=True):
    """The newest good checkpoint, its tensors on the CPU, and what was wrong with newer ones."""

    entry: Checkpoint
    state: dict[str, Any]
    refused: list[str]


def save_checkpoint(
    folder: Path,
    run_key: str,
    step: int,
    state: dict[str, Any],
    times: Times | None = None,
    keep: int = 2,
) -> Checkpoint:
    """Write a checkpoint of `state`: tensors, numbers, strings, lists and dicts.

    Then all but the newest `keep` of this run are removed, and those of other runs.

    Raises:
        TrainingError: it cannot be written (a full disk); those before it are still there.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getbuffer()
    name = f"{_STEM}{step:08d}"
    entry = Checkpoint(
        run_key=run_key,
        step=step,
        file=f"{name}.pt",
        bytes=data.nbytes,
        sha256=hashlib.sha256(data).hexdigest(),
        times=times or Times(),
    )
    entry = msgspec.structs.replace(entry, check=xxh128(_encode(entry)).hex())
    try:
        # A manifest of that name must never stand beside a file that it does not describe.
        (folder / f"{name}.json").unlink(missing_ok=True)
        write_atomic(folder / entry.file, data)
        write_atomic(folder / f"{name}.json", _encode(entry))
        prune_checkpoints(folder, run_key, keep)
    except OSError as error:
        raise TrainingError(
            f"{folder}: cannot write the checkpoint of step {step} ({data.nbytes:,} bytes):"
            f" {error.strerror}; the last one is kept: make room and run the same command again"
        ) from None
    return entry


def load_checkpoint(folder: Path, run_key: str) -> Found | None:
    """Return the newest checkpoint of a run that is as it was written; None if there never was one.

    Raises:
        CorruptError: there are checkpoints, and every one of this run is damaged.
    """
    refused: list[str] = []
    for path in _manifests(folder):
        try:
            entry = _read_manifest(path)
            if entry.run_key != run_key:
                continue
            return Found(entry, _read_state(folder / entry.file, entry), refused)
        except CorruptError as error:
            refused.append(str(error))
    if refused:
        raise CorruptError(
            f"{'; '.join(refused)}; no good checkpoint is left: remove {folder} to start the run"
            " again from its first step"
        )
    return None


def prune_checkpoints(folder: Path, run_key: str, keep: int) -> None:
    """Remove all checkpoints but the newest `keep` of this run; manifests first."""
    kept: set[str] = set()
    for path in _manifests(folder):
        try:
            belongs = _read_manifest(path).run_key == run_key
        except CorruptError:
            belongs = False
        if belongs and len(kept) < keep:
            kept.add(path.stem)
        else:
            path.unlink()
    for path in folder.glob(f"{_STEM}*.pt"):
        if path.stem not in kept:
            path.unlink()


def _manifests(folder: Path) -> list[Path]:
    """Return the manifests in a folder, newest step first."""
    return sorted(folder.glob(f"{_STEM}*.json"), reverse=True)


def _encode(entry: Checkpoint) -> bytes:
    return msgspec.json.format(msgspec.json.encode(entry)) + b"\n"


def _read_manifest(path: Path) -> Checkpoint:
    data = path.read_bytes()
    try:
        entry = msgspec.json.decode(data, type=Checkpoint)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError(f"{path}: not a checkpoint's manifest ({error})") from None
    found = xxh128(_encode(msgspec.structs.replace(entry, check=""))).hex()
    if found != entry.check or data != _encode(entry):
        raise CorruptError(f"{path}: was changed: expected xxh3-128 {entry.check!r}, found {found}")
    if entry.format != FORMAT or entry.file != f"{path.stem}.pt":
        raise CorruptError(f"{path}: format {entry.format} of {entry.file!r}, expected {FORMAT}")
    return entry


def _read_state(file: Path, entry: Checkpoint) -> dict[str, Any]:
    """Read what a checkpoint holds; the bytes that are hashed are the bytes that are loaded."""
    if not file.exists():
        raise CorruptError(f"{file}: is missing, though its manifest is there")
    data = file.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != entry.sha256:
        raise CorruptError(
            f"{file}: expected {entry.bytes} bytes with sha256 {entry.sha256}, found {len(data)}"
            f" with {found}"
        )
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state
