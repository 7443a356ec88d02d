"""Verification: whether a dataset's files are, bit by bit, what its manifest says.

Each shard is read once, in the MiB blocks of the manifest, so that a flipped bit is reported with
its file and block; sha256 of the whole file rides along. Hashing releases the GIL, so a thread a
core does it. The quick mode reads a few blocks of each shard: it finds what is missing, cut off or
overwritten at large, not every flipped bit.
"""

import hashlib
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from shards.atomic import is_partial
from shards.errors import AssayError, CorruptError, DatasetError
from shards.hashing import BLOCK_BYTES, xxh128
from shards.manifest import MANIFEST, Counts, Manifest, ShardEntry, read_manifest
from shards.remote import Remote, is_remote
from shards.tokens import open_token_shard

Progress = Callable[[int], None]

_FETCH_THREADS = 8
"""Shards that are fetched at a time: the wait is for the network, not for a core."""

QUICK_BLOCKS = 16
"""Blocks of each shard that the quick mode reads: the first, the last and others at random, so that
a damaged block among n is found with a chance of 16 in n, and other blocks are read next time."""


class Problem(NamedTuple):
    """One thing that is wrong: in which file (relative to the dataset), and block if it has one."""

    path: str
    block: int | None
    message: str

    def __str__(self) -> str:
        place = self.path if self.block is None else f"{self.path} block {self.block}"
        return f"{place}: {self.message}"


def verify(
    folder: str | Path, *, quick: bool = False, progress: Progress | None = None
) -> list[Problem]:
    """Compare a documents or tokens dataset with its manifest; an empty list means all is well.

    Args:
        folder: the dataset, or its URL.
        quick: look at the manifest, names and sizes, and at `QUICK_BLOCKS` blocks of each shard.
        progress: called with numbers of bytes as they are done (from several threads).

    Raises:
        DatasetError: `folder` has no manifest that can be read, or it was changed (CorruptError):
            then nothing says what the rest should be.
        PlatformError: a URL that cannot be read.
    """
    if is_remote(folder):
        return _verify_remote(Remote(str(folder)), quick, progress)
    root = Path(folder)
    manifest = read_manifest(root)
    problems = [*_counts(manifest), *_extra_files(root, manifest)]
    entries = [entry for group in manifest.content.shards.values() for entry in group]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        checks = [
            pool.submit(_check_shard, root, entry, manifest, quick, progress) for entry in entries
        ]
        for check in as_completed(checks):
            problems += check.result()
    return sorted(problems, key=lambda problem: (problem.path, problem.block or 0))


def _verify_remote(source: Remote, quick: bool, progress: Progress | None = None) -> list[Problem]:
    """Check a dataset at a URL; what its shards hold follows from their bytes, so is not read."""
    manifest = source.manifest()
    entries = [entry for group in manifest.content.shards.values() for entry in group]
    folders = sorted({entry.path.rpartition("/")[0] for entry in entries})
    sizes: dict[str, int] = {}
    for folder in folders:
        with suppress(DatasetError):  # no folder: each of its shards is missing
            sizes |= source.sizes(folder)
    known = {entry.path for entry in entries}
    problems = _counts(manifest) + [
        Problem(path, None, "is not in the manifest")
        for path in sorted(sizes.keys() - known)
        if not is_partial(Path(path))
    ]
    with ThreadPoolExecutor(_FETCH_THREADS) as pool:
        checks = [
            pool.submit(_check_remote_shard, source, entry, sizes.get(entry.path), quick, progress)
            for entry in entries
        ]
        for check in as_completed(checks):
            problems += check.result()
    return sorted(problems, key=lambda problem: (problem.path, problem.block or 0))


def _check_remote_shard(
    source: Remote, entry: ShardEntry, size: int | None, quick: bool, progress: Progress | None
) -> list[Problem]:
    if size != entry.bytes:
        return [_wrong_size(entry, size)]
    problems = []
    whole = hashlib.sha256()
    for block in _sample(entry) if quick else range(len(entry.blocks)):
        try:
            data = source.fetch(entry, block)
        except CorruptError as error:
            problems.append(Problem(entry.path, block, str(error).partition("): ")[2]))
            continue
        whole.update(data)
        if progress:
            progress(len(data))
    if not quick and not problems and whole.hexdigest() != entry.sha256:
        problems.append(_wrong_sha256(entry, whole.hexdigest()))
    return problems


def check_shard(root: str | Path, entry: ShardEntry) -> None:
    """Check the size and every block of one shard, before what it holds is shown or used.

    Raises:
        CorruptError: naming the file and the first block that is not as it was written.
    """
    path = Path(root) / entry.path
    try:
        size = path.stat().st_size
        problems = [] if size == entry.bytes else [f"{size} bytes, expected {entry.bytes}"]
        with path.open("rb") as file:
            for block in range(len(entry.blocks) if not problems else 0):
                found = _check_block(entry, block, file.read(BLOCK_BYTES), None)
                problems += [f"block {block}: {problem.message}" for problem in found]
    except OSError as error:
        problems = [f"cannot be read: {error.strerror}"]
    if problems:
        raise CorruptError(f"{path}: {problems[0]}; see `assay verify {root}`")


def _check_shard(
    root: Path, entry: ShardEntry, manifest: Manifest, quick: bool, progress: Progress | None
) -> list[Problem]:
    """Check one shard: presence, size, hashes, then what it holds."""
    path = root / entry.path
    size = path.stat().st_size if path.is_file() else None
    if size != entry.bytes:
        return [_wrong_size(entry, size)]
    if quick:
        return _check_sample(path, entry, progress)
    return _check_hashes(path, entry, progress) or _check_rows(path, entry, manifest)


def _wrong_size(entry: ShardEntry, size: int | None) -> Problem:
    if size is None:
        return Problem(entry.path, None, "is missing")
    kind = "truncated" if size < entry.bytes else "too long"
    block = min(size, entry.bytes) // BLOCK_BYTES
    return Problem(entry.path, block, f"{kind}: {size} bytes, expected {entry.bytes}")


def _wrong_sha256(entry: ShardEntry, found: str) -> Problem:
    return Problem(entry.path, None, f"expected sha256 {entry.sha256}, found {found}")


def _sample(entry: ShardEntry) -> list[int]:
    """Draw a few blocks: the first, the last, and others."""
    ends = {0, len(entry.blocks) - 1} if entry.blocks else set()
    between = range(1, len(entry.blocks) - 1)
    return sorted({*ends, *random.sample(between, min(len(between), QUICK_BLOCKS - 2))})


def _check_sample(path: Path, entry: ShardEntry, progress: Progress | None) -> list[Problem]:
    """Compare a few blocks with their hashes."""
    problems = []
    with path.open("rb") as file:
        for block in _sample(entry):
            file.seek(block * BLOCK_BYTES)
            problems += _check_block(entry, block, file.read(BLOCK_BYTES), progress)
    return problems


def _check_block(
    entry: ShardEntry, block: int, data: bytes, progress: Progress | None
) -> list[Problem]:
    if progress:
        progress(len(data))
    found, expected = xxh128(data).hex(), entry.blocks[block]
    if found == expected:
        return []
    return [Problem(entry.path, block, f"expected xxh3-128 {expected}, found {found}")]


def _check_hashes(path: Path, entry: ShardEntry, progress: Progress | None) -> list[Problem]:
    problems: list[Problem] = []
    whole = hashlib.sha256()
    with path.open("rb") as file:
        for block in range(len(entry.blocks)):
            data = file.read(BLOCK_BYTES)
            whole.update(data)
            problems += _check_block(entry, block, data, progress)
    if not problems and whole.hexdigest() != entry.sha256:
        problems.append(_wrong_sha256(entry, whole.hexdigest()))
    return problems


def _check_rows(path: Path, entry: ShardEntry, manifest: Manifest) -> list[Problem]:
    """Check that a shard whose bytes are right holds what the manifest says of it."""
    tokens = 0
    try:
        if manifest.content.kind == "tokens":
            shard = open_token_shard(path)
            documents, tokens = shard.batch.num_rows, len(shard.tokens)
        else:
            documents = pq.read_metadata(path).num_rows
    except (AssayError, pa.ArrowException, OSError) as error:
        return [Problem(entry.path, None, f"cannot be read: {error}")]
    if (documents, tokens) == (entry.documents, entry.tokens):
        return []
    message = (
        f"{documents} documents and {tokens} tokens, expected {entry.documents} and {entry.tokens}"
    )
    return [Problem(entry.path, None, message)]


def _counts(manifest: Manifest) -> list[Problem]:
    """Check that the manifest's own numbers add up."""
    content, problems = manifest.content, []

    def expect(what: str, found: int, expected: int) -> None:
        if found != expected:
            problems.append(Problem(MANIFEST, None, f"{what}: {found}, expected {expected}"))

    for name, counts in [("total", content.total), *content.sources.items()]:
        expect(f"{name}: kept + dropped", counts.kept + counts.dropped, counts.read)
        expect(f"{name}: drops by reason", sum(counts.drops.values()), counts.dropped)
    for field in Counts.__struct_fields__:
        if content.sources and field != "drops":
            found = sum(getattr(counts, field) for counts in content.sources.values())
            expect(f"sum of sources: {field}", found, getattr(content.total, field))
    if content.kind == "documents":
        for role in ("kept", "dropped"):
            found = sum(entry.documents for entry in content.shards.get(role, []))
            expect(f"documents in {role} shards", found, getattr(content.total, role))
        return problems
    first = 0
    for entry in content.shards.get("tokens", []):
        expect(f"{entry.path}: first token", entry.first_token, first)
        first += entry.tokens
    expect("tokens in shards", first, content.total.tokens)
    return problems


def _extra_files(root: Path, manifest: Manifest) -> list[Problem]:
    """Find files beside the shards that are not in the manifest, leftovers of a kill excepted."""
    known = {root / entry.path for group in manifest.content.shards.values() for entry in group}
    folders = {path.parent for path in known} - {root}
    return [
        Problem(str(path.relative_to(root)), None, "is not in the manifest")
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if path not in known and not is_partial(path)
    ]
