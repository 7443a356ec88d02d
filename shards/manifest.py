"""The manifest: what a dataset holds, where it came from, and the id that follows from it.

`manifest.json` is written last, by an atomic rename: a folder without one is not a dataset. It has
two parts. `content` is hashed: its sha256 (first 32 hex digits) *is* the dataset id, so it holds
nothing that depends on the runner, the workers, the range size, file names or the day. `run`
holds exactly those facts.
"""

from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec

from shards.errors import CorruptError, DatasetError
from shards.hashing import stable_hash, xxh128

FORMAT = 1
MANIFEST = "manifest.json"


_MAKERS = {"documents": "curate", "tokens": "tokenize", "scored": "score"}
"""The command that makes each kind of dataset, by `made_as`."""


class ShardEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One shard file of a dataset.

    `path` is relative to the dataset folder; `blocks` holds the xxh3-128 of each MiB; `tokens` and
    `first_token` (its place in the dataset's token stream) are 0 in document datasets.
    """

    path: str
    bytes: int
    sha256: str
    blocks: list[str]
    documents: int
    tokens: int = 0
    first_token: int = 0


class InputEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input file by content: `hash` is xxh3-128 (hex) of its bytes, `copy` tells equals apart.

    The file's name is not here but in the manifest's `run.paths`, so that renaming changes nothing.
    """

    hash: str
    bytes: int
    copy: int = 0


class Counts(msgspec.Struct, forbid_unknown_fields=True):
    """Documents and UTF-8 bytes, of the whole dataset or of one source: read = kept + dropped."""

    read: int = 0
    kept: int = 0
    dropped: int = 0
    bytes_read: int = 0
    bytes_kept: int = 0
    tokens: int = 0
    drops: dict[str, int] = msgspec.field(default_factory=dict)


class Content(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The hashed part of a manifest.

    `shards` groups shard files by role: `kept` and `dropped` for documents, `tokens` for tokens.
    `definitions` maps each definition that can change a decision to its version. `stats` holds
    plain data for reports.
    """

    kind: Literal["documents", "tokens"]
    shards: dict[str, list[ShardEntry]]
    total: Counts
    sources: dict[str, Counts]
    inputs: list[InputEntry] = []
    parents: list[str] = []
    recipe: dict[str, Any] = {}
    definitions: dict[str, str] = {}
    tokenizer: dict[str, Any] | None = None
    stats: dict[str, Any] = {}


class Manifest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A dataset's manifest; build it with `new_manifest`, so that the id is right.

    `check` is set by `encode_manifest`: it covers what the id does not (`stage_key`, `run`).
    """

    format: int
    dataset_id: str
    stage_key: str
    content: Content
    run: dict[str, Any]
    check: str = ""


class _Versioned(msgspec.Struct):
    """What a manifest of any format states."""

    format: int


def dataset_id(content: Content) -> str:
    """Return the id of a dataset: 32 hex digits of the sha256 of `content` as canonical JSON."""
    return stable_hash(content)


def new_manifest(content: Content, *, stage_key: str, run: dict[str, Any]) -> Manifest:
    """Make a manifest. `stage_key` is the hash of what went in, so that a stage can be skipped."""
    return Manifest(
        format=FORMAT,
        dataset_id=dataset_id(content),
        stage_key=stage_key,
        content=content,
        run=run,
    )


def encode_manifest(manifest: Manifest) -> bytes:
    """Encode a manifest as indented JSON with sorted keys and a final newline.

    The file states the xxh3-128 of itself in `check` (of its bytes while `check` is empty).
    """
    unchecked = _indented(msgspec.structs.replace(manifest, check=""))
    return _indented(msgspec.structs.replace(manifest, check=xxh128(unchecked).hex()))


def _indented(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check a dataset's manifest.

    Raises:
        DatasetError: no manifest, not readable as one, made by another format version, or the
            content does not hash to the id that it states.
        CorruptError: any other byte is not as it was written.
    """
    path = Path(folder) / MANIFEST
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        if not path.parent.exists():
            raise DatasetError(f"{folder}: no such folder") from None
        raise no_manifest(folder) from None
    except NotADirectoryError:
        raise DatasetError(f"{folder}: is a file; give the dataset's folder") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None
    return decode_manifest(
        data, str(path), f"delete it and run the command that made {folder} again"
    )


def no_manifest(folder: str | Path) -> DatasetError:
    """Return the error about a folder without a manifest, wherever that folder is."""
    return DatasetError(
        f"{folder}: not a dataset (no {MANIFEST}); a job that was interrupted leaves none:"
        " run it again and it resumes"
    )


def decode_manifest(data: bytes, path: str, instead: str) -> Manifest:
    """Decode and check a manifest's bytes.

    Args:
        data: what `encode_manifest` gave.
        path: its name, for error messages.
        instead: what can be done other than restoring it, for error messages.

    Raises:
        DatasetError, CorruptError: as `read_manifest`.
    """
    remedy = f"restore it, or {instead}"
    try:
        stated = msgspec.json.decode(data, type=_Versioned).format
        if stated != FORMAT:
            raise DatasetError(
                f"{path}: format {stated}, but this version of Assay reads format {FORMAT};"
                " make the dataset again into another folder"
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not a manifest: {error}; {remedy}") from None
    found = dataset_id(manifest.content)
    if found != manifest.dataset_id:
        raise DatasetError(
            f"{path}: was changed after it was written: it states dataset id"
            f" {manifest.dataset_id}, its content hashes to {found}; {remedy}"
        )
    if data != encode_manifest(manifest):
        raise CorruptError(
            f"{path}: was changed after it was written: its bytes do not match its check"
            f" {manifest.check!r}; {remedy}"
        )
    return manifest


def check_paths(manifest: Manifest, name: str) -> None:
    """Check that no shard's path leads out of the dataset, before files are written by it.

    Raises:
        DatasetError: a path is absolute or goes up; `name` says whose manifest it is.
    """
    for entries in manifest.content.shards.values():
        for entry in entries:
            path = PurePosixPath(entry.path)
            if path.is_absolute() or ".." in path.parts or "\\" in entry.path or not path.parts:
                raise DatasetError(f"{name}: shard path {entry.path!r} leads out of the dataset")


def check_files(folder: str | Path, manifest: Manifest) -> None:
    """Check that every shard is there with its recorded size: one `stat` each, no reading.

    Raises:
        DatasetError: a shard is missing.
        CorruptError: a shard has another size than the manifest says.
    """
    again = (
        f"make the dataset again with `assay {_MAKERS[made_as(manifest.content)]}`, or restore it"
    )
    for entries in manifest.content.shards.values():
        for entry in entries:
            path = Path(folder) / entry.path
            if not path.is_file():
                raise DatasetError(f"{path}: shard is missing; {again}")
            size = path.stat().st_size
            if size != entry.bytes:
                raise CorruptError(f"{path}: {size} bytes, expected {entry.bytes}; {again}")


def made_as(content: Content) -> str:
    """Return "scored" for a tokens dataset that `assay score` made, else the dataset's kind."""
    return "scored" if "score" in content.recipe else content.kind


def remedy(kind: str, files: int = 1) -> str:
    """Return what to do about shards whose bytes changed, for error messages.

    The command that made it looks at sizes only, and would say that it is up to date: so a
    shard must be deleted before it makes the dataset again.

    Args:
        kind: of the dataset, by `made_as`: another command than its own would overwrite it.
        files: how many changed.
    """
    this, it = ("this file", "it") if files == 1 else ("these files", "them")
    return f"restore {this}, or delete {it} and run `assay {_MAKERS[kind]}` again"


def current_manifest(folder: str | Path, stage_key: str) -> Manifest | None:
    """Return the manifest of `folder` if it holds the whole result of the stage with this key.

    Where a shard is missing or has another size there is none, so that the stage runs again. What
    is inside the shards is not looked at: that is `assay verify`'s.

    Raises:
        DatasetError: there is a manifest, but it cannot be used (see `read_manifest`).
    """
    if not (Path(folder) / MANIFEST).exists():
        return None
    manifest = read_manifest(folder)
    if manifest.stage_key != stage_key:
        return None
    try:
        check_files(folder, manifest)
    except DatasetError:
        return None
    return manifest
