"""The transport form of a dataset: shards and manifest as zstd files under the same names.

Shards are stored uncompressed, since they are mapped; on the way from machine to machine tokens
take less as zstd. What matters is what comes out: each block is compared with the manifest's hash
when it is packed and when it is unpacked, so the dataset that arrives has the id of the one that
left. Any zstd tool reads the files.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import zstandard

from shards.atomic import is_partial, replacing, write_atomic
from shards.errors import CorruptError, DatasetError, PlatformError
from shards.hashing import BLOCK_BYTES, xxh128
from shards.manifest import (
    MANIFEST,
    Manifest,
    ShardEntry,
    check_files,
    check_paths,
    decode_manifest,
    encode_manifest,
    made_as,
    read_manifest,
    remedy,
)

SUFFIX = ".zst"
Progress = Callable[[int], None]


def pack(
    folder: Path, out: Path, *, level: int = 3, progress: Progress | None = None
) -> tuple[Manifest, int]:
    """Write the transport form of the dataset `folder` into the folder `out`, manifest last.

    Args:
        folder: a finished dataset.
        out: new, empty, or what an earlier pack of the same dataset left; that is written again.
        level: zstd's; changes nothing but size and time.
        progress: called with numbers of bytes read (from several threads).

    Returns:
        The manifest, and the bytes that were written.

    Raises:
        DatasetError: not a dataset, a shard is missing, or `out` holds other files.
        CorruptError: a block does not match its hash: a damaged dataset is not passed on.
        PlatformError: `out` cannot be written to.
    """
    manifest = read_manifest(folder)
    check_paths(manifest, str(folder))
    check_files(folder, manifest)
    names = [entry.path + SUFFIX for entry in _entries(manifest)]
    _check_output(out, {*names, MANIFEST + SUFFIX})
    (out / (MANIFEST + SUFFIX)).unlink(missing_ok=True)
    instead = remedy(made_as(manifest.content))

    def work(entry: ShardEntry) -> int:
        target = out / (entry.path + SUFFIX)
        compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
        with (folder / entry.path).open("rb") as source, replacing(target) as file:
            sink = compressor.stream_writer(file, size=entry.bytes, closefd=False)
            _copy(entry, source, sink, folder / entry.path, instead, progress)
            sink.flush(zstandard.FLUSH_FRAME)
            return file.tell()

    size = _each(work, manifest, out)
    encoded = zstandard.ZstdCompressor(level=level).compress(encode_manifest(manifest))
    write_atomic(out / (MANIFEST + SUFFIX), encoded)
    return manifest, size + len(encoded)


def unpack(folder: Path, out: Path, *, progress: Progress | None = None) -> Manifest:
    """Write the dataset whose transport form is in `folder` into the folder `out`, manifest last.

    A shard that is already there, whole, is kept, so an unpacking that was killed goes on.

    Raises:
        DatasetError: `folder` is no transport form, or `out` holds other files.
        CorruptError: a file is damaged or cut off (it is named, with the block).
        PlatformError: `out` cannot be written to.
    """
    path = folder / (MANIFEST + SUFFIX)
    instead = "copy the packed file again, or pack the dataset again"
    try:
        with path.open("rb") as file:
            data = zstandard.ZstdDecompressor().stream_reader(file).read()
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(
            f"{folder}: not a packed dataset (no {path.name}); make one with `assay pack`"
        ) from None
    except zstandard.ZstdError as error:
        raise CorruptError(f"{path}: not a zstd file: {error}; {instead}") from None
    manifest = decode_manifest(data, str(path), instead)
    check_paths(manifest, str(path))
    _check_output(out, {*(entry.path for entry in _entries(manifest)), MANIFEST})

    def work(entry: ShardEntry) -> int:
        target, packed = out / entry.path, folder / (entry.path + SUFFIX)
        if _is_whole(target, entry):
            if progress:
                progress(entry.bytes)
            return 0
        try:
            with packed.open("rb") as raw, replacing(target) as file:
                source = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
                _copy(entry, source, file, packed, instead, progress)
        except FileNotFoundError:
            raise DatasetError(f"{packed}: is missing; {instead}") from None
        except zstandard.ZstdError as error:
            raise CorruptError(f"{packed}: cannot be decompressed: {error}; {instead}") from None
        return 0

    _each(work, manifest, out)
    write_atomic(out / MANIFEST, encode_manifest(manifest))
    return manifest


def _copy(
    entry: ShardEntry,
    source: IO[bytes],
    sink: IO[bytes],
    path: Path,
    instead: str,
    progress: Progress | None,
) -> None:
    """Copy a shard block by block, each compared with its hash."""
    for block, expected in enumerate(entry.blocks):
        data = source.read(min(BLOCK_BYTES, entry.bytes - block * BLOCK_BYTES))
        found = xxh128(data).hex()
        if found != expected:
            raise CorruptError(
                f"{path}: block {block} of {entry.path}: expected xxh3-128 {expected}, found"
                f" {found}; {instead}"
            )
        sink.write(data)
        if progress:
            progress(len(data))
    if source.read(1):
        raise CorruptError(f"{path}: holds more than the {entry.bytes} bytes of {entry.path}")


def _each(work: Callable[[ShardEntry], int], manifest: Manifest, out: Path) -> int:
    """Do the work for all shards, on all cores (zstd and hashing release the GIL)."""
    try:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return sum(pool.map(work, _entries(manifest)))
    except OSError as error:
        raise PlatformError(f"{out}: cannot be written to: {error}") from None


def _entries(manifest: Manifest) -> list[ShardEntry]:
    return [entry for group in manifest.content.shards.values() for entry in group]


def _is_whole(path: Path, entry: ShardEntry) -> bool:
    if not path.is_file() or path.stat().st_size != entry.bytes:
        return False
    with path.open("rb") as file:
        return all(xxh128(file.read(BLOCK_BYTES)).hex() == block for block in entry.blocks)


def _check_output(out: Path, names: set[str]) -> None:
    """Make the folder, and refuse one that holds anything else than `names`."""
    if out.exists() and not out.is_dir():
        raise DatasetError(f"{out}: is a file; --out must be a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlatformError(f"{out}: cannot be created: {error.strerror}") from None
    for path in out.rglob("*"):
        if path.is_file() and not is_partial(path) and str(path.relative_to(out)) not in names:
            raise DatasetError(
                f"{out}: holds other files ({path.relative_to(out)}), nothing was changed; choose"
                " another --out"
            )
