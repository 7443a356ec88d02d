"""Checkpoints that appear whole, are verified before they are used, and have a spare.

`checkpoint-NNNNNNNN.R-of-W.safetensors` are written first, one by each of W writers, then the
manifest, `checkpoint-NNNNNNNN.json`, with size and sha256 of each and an xxh3-128 of itself: the
manifest makes the checkpoint. So a killed run leaves a checkpoint or none, never a part of one. Any
flipped bit, cut or missing file is found (torch and its distributed checkpoints load a file with a
flipped weight without a word), and the checkpoint before it is taken instead.

A state is nested dicts and lists of numbers, strings and tensors. Tensors go into the file's body,
everything else into its metadata as JSON: nothing is pickled, so reading a checkpoint runs no code,
and equal states are equal bytes. Of a tensor that is cut over the writers each writes its `Piece`;
who reads may be any number of ranks, and each puts together what it needs.
"""

import hashlib
import math
import mmap
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from torch import Tensor

from shards.atomic import is_partial, replacing, write_atomic
from shards.errors import CorruptError, TrainingError
from shards.hashing import xxh128
from trainer.history import Times
from trainer.ranks import ALONE, Ranks
from trainer.tensor_file import decode_tensors, tensor_chunks

FORMAT = 3
STEM = "checkpoint-"
_STEP = re.compile(rf"{STEM}(\d+)\.")
_HASHED_BYTES = 8 << 20
"""Bytes that are hashed at once: of a file of many gigabytes no more is in memory."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one writer wrote: a file of the checkpoint, its size and its sha256."""

    file: str
    bytes: int
    sha256: str


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The manifest of one checkpoint; `check` is the xxh3-128 of itself with `check` empty.

    `times` are sums of seconds: here and not in the files, so that equal runs save equal files.
    """

    format: int = FORMAT
    run_key: str
    step: int
    parts: list[Part]
    times: Times
    check: str = ""

    @property
    def sha256(self) -> str:
        """The sha256 of the only file, or that of all files' sha256, one after the other."""
        first, *others = (part.sha256 for part in self.parts)
        return hashlib.sha256("".join([first, *others]).encode()).hexdigest() if others else first


class Piece(NamedTuple):
    """A writer's part of a tensor: from place `start` of dimension `dim`, which has `size`."""

    tensor: Tensor
    dim: int
    start: int
    size: int


class Pieces(NamedTuple):
    """All parts of a tensor as they lie in their files."""

    pieces: list[Piece]

    def whole(self) -> Tensor:
        """Return the tensor, in memory of its own."""
        ordered = sorted(self.pieces, key=lambda piece: piece.start)
        return torch.cat([piece.tensor for piece in ordered], dim=ordered[0].dim)


class Found(msgspec.Struct, frozen=True):
    """The newest good checkpoint, its tensors on the CPU, and what was wrong with newer ones.

    Tensors that were cut are `Pieces` where a group of ranks reads, and whole otherwise.
    """

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
    """Write a checkpoint as the only writer: `write_part`, then `commit_checkpoint`."""
    part = write_part(folder, step, state)
    return commit_checkpoint(folder, run_key, step, [part], times or Times(), keep)


def write_part(
    folder: Path, step: int, state: dict[str, Any], writer: int = 0, writers: int = 1
) -> Part:
    """Write one writer's file of a checkpoint, which is none before `commit_checkpoint`.

    Raises:
        TrainingError: it cannot be written (a full disk).
    """
    path = folder / f"{STEM}{step:08d}.{writer}-of-{writers}.safetensors"
    tensors, metadata = _encode_state(state, first=writer == 0)
    digest, size = hashlib.sha256(), 0
    try:
        # A manifest must never stand beside a file that it does not describe.
        _manifest(folder, step).unlink(missing_ok=True)
        with replacing(path) as file:
            for chunk in tensor_chunks(tensors, metadata):
                digest.update(chunk)
                file.write(chunk)
                size += len(chunk)
    except OSError as error:
        raise _cannot_write(folder, step, error) from None
    return Part(path.name, size, digest.hexdigest())


def commit_checkpoint(
    folder: Path,
    run_key: str,
    step: int,
    parts: list[Part],
    times: Times,
    keep: int = 2,
    pinned: int | None = None,
) -> Checkpoint:
    """Make a checkpoint of the files of all writers, in their order.

    Then all but the newest `keep` of this run and that of step `pinned` are removed: this one and
    those of steps before it.

    Raises:
        TrainingError: it cannot be written; those before it are still there.
    """
    entry = Checkpoint(run_key=run_key, step=step, parts=parts, times=times)
    entry = msgspec.structs.replace(entry, check=xxh128(_encode(entry)).hex())
    try:
        write_atomic(_manifest(folder, step), _encode(entry))
        # Of several writers one may be at work on the next checkpoint already.
        until = step if len(parts) > 1 else None
        prune_checkpoints(folder, run_key, keep, newest=step, until=until, pinned=pinned)
    except OSError as error:
        raise _cannot_write(folder, step, error) from None
    return entry


def _cannot_write(folder: Path, step: int, error: OSError) -> TrainingError:
    return TrainingError(
        f"{folder}: cannot write the checkpoint of step {step}: {error.strerror}; any before it is"
        " kept: make room and run the same command again"
    )


Needs = Callable[[int], int | None]
"""Says of a step which one's checkpoint a run that goes on from there may go back to."""


def load_checkpoint(
    folder: Path, run_key: str, ranks: Ranks = ALONE, *, needs: Needs = lambda _: None
) -> Found | None:
    """Return the newest checkpoint of a run that is as it was written; None if there never was one.

    Where that which it `needs` (`rollback_point`) is damaged or missing, an older one is taken,
    from which the run makes it anew; this one only if no older one is good.

    One process reads files into memory and hashes what it has read. A group of ranks, which must
    all call this and see the same folder, shares the hashing and maps the files, so that a rank
    has in memory only what it takes out of them.

    Raises:
        CorruptError: there are checkpoints, and every one of this run is damaged.
    """
    refused: list[str] = []
    needy: list[tuple[Checkpoint, str]] = []
    for entry in _entries(folder, run_key, ranks, refused):
        lack = _lack(folder, run_key, needs(entry.step), ranks, entry)
        if lack:
            needy.append((entry, lack))
            continue
        files, damage = _read_files(folder, entry, ranks, mapped=ranks.world_size > 1)
        if files:
            return _found(entry, files, [*dict.fromkeys(why for _, why in needy), *refused], ranks)
        refused.append(damage)
    for entry, lack in needy:
        files, damage = _read_files(folder, entry, ranks, mapped=ranks.world_size > 1)
        if files:
            return _found(entry, files, [*refused, lack], ranks)
        refused.append(damage)
    if not refused:
        return None
    raise CorruptError(
        f"{'; '.join(refused)}; no good checkpoint is left: remove"
        f" {folder / STEM}* to start the run again from its first step"
    )


def load_step(
    folder: Path, run_key: str, step: int, ranks: Ranks = ALONE, *, needs: Needs = lambda _: None
) -> Found:
    """Return the checkpoint of one step; `load_checkpoint` for the rest.

    Raises:
        CorruptError: it is damaged or missing; the message says whether a run that is started again
            finds an older one.
    """
    refused: list[str] = []
    for entry in _entries(folder, run_key, ranks, refused, step):
        files, damage = _read_files(folder, entry, ranks, mapped=ranks.world_size > 1)
        if files:
            return _found(entry, files, [], ranks)
        refused.append(damage)
    advice = (
        f"no older one is good: remove {folder / STEM}* to start the run again from its first step"
    )
    for entry in _entries(folder, run_key, ranks, []):
        if entry.step < step and not (
            _damage(folder, run_key, entry.step, ranks)
            or _lack(folder, run_key, needs(entry.step), ranks, entry)
        ):
            advice = (
                f"run the same command again: it goes on from the checkpoint of step {entry.step}"
            )
            break
    why = "; ".join(refused) or f"{_manifest(folder, step)}: is missing"
    raise CorruptError(f"{why}; {advice}")


def _entries(
    folder: Path, run_key: str, ranks: Ranks, refused: list[str], step: int | None = None
) -> Iterator[Checkpoint]:
    """Yield the manifests of a run, of one step or newest first; what is wrong with others."""
    manifests = [path for path in _manifests(folder) if step in (None, _step_of(path))]
    for name in ranks.share([path.name for path in manifests]):
        entry = ranks.share(_candidate(folder / name, run_key) if ranks.first else None)
        if isinstance(entry, Checkpoint):
            yield entry
        elif entry is not None:
            refused.append(entry)


def _read_files(
    folder: Path, entry: Checkpoint, ranks: Ranks, *, mapped: bool
) -> tuple[list[Any], str]:
    """Return the bytes of all files of a checkpoint; none, and what is wrong, if any is damaged."""
    files, mine = [], []
    for number, part in enumerate(entry.parts):
        try:
            to_hash = number % ranks.world_size == ranks.rank
            files.append(_read_part(folder / part.file, part, mapped, to_hash))
        except (CorruptError, OSError) as error:
            mine.append(str(error))
    damages = [damage for of_rank in ranks.gather_objects(mine) for damage in of_rank]
    return ([], "; ".join(dict.fromkeys(damages))) if damages else (files, "")


def _found(entry: Checkpoint, files: list[Any], refused: list[str], ranks: Ranks) -> Found:
    state = _decode_state(files)
    return Found(entry, state if ranks.world_size > 1 else _whole(state), refused)


def _damage(folder: Path, run_key: str, step: int, ranks: Ranks) -> str:
    """Say what is wrong with the checkpoint of a step; nothing where it is good."""
    refused: list[str] = []
    for entry in _entries(folder, run_key, ranks, refused, step):
        files, damage = _read_files(folder, entry, ranks, mapped=True)
        if files:
            return ""
        refused.append(damage)
    return "; ".join(refused) or f"{_manifest(folder, step)}: is missing"


def _lack(folder: Path, run_key: str, other: int | None, ranks: Ranks, entry: Checkpoint) -> str:
    """Say why a run that goes on from `entry` could not go back to step `other`, if so."""
    damage = "" if other in (None, entry.step) else _damage(folder, run_key, other, ranks)
    return damage and f"{damage} (to which a spike after step {entry.step} would go back)"


def newest_key(folder: Path) -> str | None:
    """Return the key of the run whose checkpoint is the newest one with a good manifest."""
    for path in _manifests(folder):
        with suppress(CorruptError):
            return _read_manifest(path).run_key
    return None


def prune_checkpoints(
    folder: Path,
    run_key: str,
    keep: int,
    newest: int | None = None,
    until: int | None = None,
    pinned: int | None = None,
) -> None:
    """Remove all checkpoints but the newest `keep` of this run; manifests first.

    Args:
        folder: the run's folder.
        run_key: the run's key; those of other runs are removed.
        keep: how many stay, at least 1.
        newest: the step that was loaded or just written, whose checkpoint always stays. Later ones
            are removed and do not count as kept: they were refused when the run was resumed, and
            their manifests alone do not show that.
        until: files without a manifest go too, up to this step: later ones are being written.
        pinned: the step of one that stays, too, and does not count (`rollback_point`).
    """
    kept: set[str] = set()
    count = 0
    for path in _manifests(folder):
        try:
            entry = _read_manifest(path)
        except CorruptError:
            entry = None
        step = _step_of(path)
        late = newest is not None and step is not None and step > newest
        mine = entry is not None and entry.run_key == run_key and not late
        if entry and mine and (count < keep or step == pinned):
            count += step != pinned
            kept |= {part.file for part in entry.parts}
        elif entry is None and newest is not None and step == newest:
            count += 1  # it was good a moment ago: who loads it next judges again
            kept |= {file.name for file in folder.glob(f"{path.stem}.*")}
        else:
            _remove(path)
    for path in folder.glob(f"{STEM}*"):
        step = _step_of(path)
        old = step is not None and (until is None or step <= until)
        if old and path.suffix != ".json" and path.name not in kept and not is_partial(path):
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a file; a folder in its place is only moved aside, as nobody knows what is in it."""
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(f"damaged-{uuid.uuid4().hex[:8]}-{path.name}"))
    else:
        path.unlink(missing_ok=True)


def _step_of(path: Path) -> int | None:
    """Return the step in a file's name."""
    found = _STEP.match(path.name)
    return int(found[1]) if found else None


def _manifest(folder: Path, step: int) -> Path:
    """Return where the manifest of a step's checkpoint is."""
    return folder / f"{STEM}{step:08d}.json"


def _manifests(folder: Path) -> list[Path]:
    """Return the manifests in a folder, newest step first."""
    return sorted(folder.glob(f"{STEM}*.json"), reverse=True)


def _encode(entry: Checkpoint) -> bytes:
    return msgspec.json.format(msgspec.json.encode(entry)) + b"\n"


def _candidate(path: Path, run_key: str) -> Checkpoint | str | None:
    """Return a manifest, what is wrong with it, or None where it is another run's."""
    try:
        entry = _read_manifest(path)
    except CorruptError as error:
        return str(error)
    return entry if entry.run_key == run_key else None


def _read_manifest(path: Path) -> Checkpoint:
    try:
        data = path.read_bytes()
    except OSError as error:  # a folder in its place, a bad sector
        raise CorruptError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        entry = msgspec.json.decode(data, type=Checkpoint)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError(
            f"{path}: not a checkpoint's manifest of format {FORMAT} ({error})"
        ) from None
    found = xxh128(_encode(msgspec.structs.replace(entry, check=""))).hex()
    if found != entry.check:
        raise CorruptError(f"{path}: was changed: expected xxh3-128 {entry.check!r}, found {found}")
    if data != _encode(entry):
        raise CorruptError(f"{path}: was changed: not byte for byte as it was written")
    if entry.format != FORMAT:
        raise CorruptError(f"{path}: has format {entry.format}, expected {FORMAT}")
    if not entry.parts or not all(part.file.startswith(f"{path.stem}.") for part in entry.parts):
        files = [part.file for part in entry.parts]
        raise CorruptError(f"{path}: is the manifest of other files: {files}")
    return entry


def _read_part(file: Path, part: Part, mapped: bool, to_hash: bool) -> Any:
    """Return the bytes of a file as a writable buffer, of known size and, if asked, hash."""
    if not file.exists():
        raise CorruptError(f"{file}: is missing, though its manifest is there")
    size = file.stat().st_size
    if size != part.bytes:
        raise CorruptError(f"{file}: expected {part.bytes} bytes, found {size}")
    if mapped:
        with file.open("rb") as opened:
            data: Any = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    else:
        data = bytearray(size)
        with file.open("rb") as opened:
            opened.readinto(data)
    if to_hash:
        digest = hashlib.sha256()
        with memoryview(data) as view:
            for start in range(0, size, _HASHED_BYTES):
                digest.update(view[start : start + _HASHED_BYTES])
        if digest.hexdigest() != part.sha256:
            raise CorruptError(f"{file}: expected sha256 {part.sha256}, found {digest.hexdigest()}")
    return data


def _encode_state(
    state: dict[str, Any], *, first: bool
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Take the tensors out of a state; return them by name, and the rest as a file's metadata.

    A tensor that is not cut is the same at every writer: only the first one has it in its file.
    """
    tensors: dict[str, Tensor] = {}
    cuts: dict[str, list[int]] = {}

    def plain(value: Any, name: str) -> Any:
        if isinstance(value, Piece):
            tensors[name], *cuts[name] = value
            return {"$": name}
        if isinstance(value, Tensor):
            if first:
                tensors[name] = value
            return {"$": name}
        if isinstance(value, dict):
            return {_key(k): plain(item, f"{name}/{k}".lstrip("/")) for k, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item, f"{name}/{number}") for number, item in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            return {"$number": str(value)}  # JSON has none that is not finite
        return value

    rest = plain(state, "")
    metadata = {"state": rest, "cuts": cuts}
    return tensors, {
        k: msgspec.json.encode(v, order="sorted").decode() for k, v in metadata.items()
    }


def _decode_state(files: list[Any]) -> dict[str, Any]:
    """Put the state together again; the tensors share the memory of the files."""
    found: dict[str, Tensor | Pieces] = {}
    pieces: dict[str, list[Piece]] = defaultdict(list)
    rest: Any = None
    for data in files:
        tensors, metadata = decode_tensors(data)
        cuts = msgspec.json.decode(metadata["cuts"], type=dict[str, tuple[int, int, int]])
        rest = rest or msgspec.json.decode(metadata["state"])
        for name, tensor in tensors.items():
            if name in cuts:
                pieces[name].append(Piece(tensor, *cuts[name]))
            else:
                found.setdefault(name, tensor)
    found |= {name: Pieces(parts) for name, parts in pieces.items()}

    def full(value: Any) -> Any:
        if isinstance(value, dict):
            if value.keys() == {"$"}:
                return found[value["$"]]
            if value.keys() == {"$number"}:
                return float(value["$number"])
            return {_from_key(key): full(item) for key, item in value.items()}
        return [full(item) for item in value] if isinstance(value, list) else value

    state: dict[str, Any] = full(rest)
    return state


def _whole(value: Any) -> Any:
    if isinstance(value, Pieces):
        return value.whole()
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def _key(key: str | int) -> str:
    """Write a key for JSON, whose keys are strings: optimisers number their parameters."""
    return f"#{key}" if isinstance(key, int) else key


def _from_key(key: str) -> str | int:
    return int(key[1:]) if key.startswith("#") else key
