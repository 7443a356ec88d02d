"""A tokenizer on disk: `tokenizer.json`, which states the hash of `tokenizer.model` beside it.

The description is written first: a model alone may be anybody's (it is the usual name of a
sentencepiece model), so a folder that a killed job leaves must say that it is ours. It is whole
once the model has the hash that is stated.
"""

import hashlib
from pathlib import Path

import msgspec

from shards.atomic import is_partial, write_atomic
from shards.errors import CorruptError, DatasetError, PlatformError, RecipeError
from tokenizer.config import TokenizerConfig

MODEL = "tokenizer.model"
INFO = "tokenizer.json"


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a tokenizer was trained on: `bytes` of UTF-8, and `share`, the hash threshold."""

    documents: int
    bytes: int
    share: float


class TokenizerInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`tokenizer.json`. `dataset_id` names the documents, `stage_key` all that went in."""

    format: int = 1
    stage_key: str
    dataset_id: str
    config: TokenizerConfig
    definitions: dict[str, str]
    sample: Sample
    sha256: str
    pieces_hash: str
    vocab_size: int
    special_ids: dict[str, int]


def check_output(folder: Path) -> None:
    """Refuse an output that cannot be written, or that holds something else than a tokenizer.

    Raises:
        RecipeError: `folder` is a file, or has files but no `tokenizer.json` of Assay.
        PlatformError: it cannot be created.
    """
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{folder}: is a file; --out must be a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = [path for path in folder.iterdir() if not is_partial(path)]
    except OSError as error:
        raise _unwritable(folder, error) from None
    if not names:
        return
    try:
        read_info(folder)
    except DatasetError as error:
        raise RecipeError(
            f"{folder}: is not empty and not a tokenizer of Assay, nothing was changed; choose"
            f" another --out ({error})"
        ) from None


def write_folder(folder: Path, model: bytes, info: TokenizerInfo) -> None:
    """Write a tokenizer into a folder that `check_output` let pass.

    Raises:
        PlatformError: it cannot be written.
    """
    encoded = msgspec.json.encode(info, order="sorted")
    try:
        write_atomic(folder / INFO, msgspec.json.format(encoded, indent=1) + b"\n")
        write_atomic(folder / MODEL, model)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> PlatformError:
    return PlatformError(f"{folder}: cannot be written to: {error.strerror}; choose another --out")


def read_info(folder: Path) -> TokenizerInfo:
    """Read `tokenizer.json`.

    Raises:
        DatasetError: not a tokenizer folder.
    """
    try:
        return msgspec.json.decode((folder / INFO).read_bytes(), type=TokenizerInfo)
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(
            f"{folder}: not a tokenizer (no {INFO}); make one with `assay tokenizer train`"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{folder / INFO}: not a tokenizer's description: {error}") from None


def read_model(path: Path) -> bytes:
    """Read the model of a tokenizer folder, checked against its hash, or a bare model file.

    Raises:
        DatasetError: no such file or folder.
        CorruptError: the model does not hash to what `tokenizer.json` states.
    """
    if not path.is_dir():
        if not path.exists():
            raise DatasetError(f"{path}: no such tokenizer")
        return path.read_bytes()
    info = read_info(path)
    try:
        model = (path / MODEL).read_bytes()
    except FileNotFoundError:
        raise DatasetError(f"{path / MODEL}: is missing, though {INFO} describes it") from None
    found = hashlib.sha256(model).hexdigest()
    if found != info.sha256:
        raise CorruptError(
            f"{path / MODEL}: sha256 is {found}, {INFO} states {info.sha256}: the file was changed"
            " or damaged; train it again"
        )
    return model


def current_info(folder: Path, stage_key: str) -> TokenizerInfo | None:
    """Return what stands in `folder` if it is whole and was made by the stage with this key."""
    try:
        read_model(folder)
        info = read_info(folder)
    except DatasetError:
        return None
    return info if info.stage_key == stage_key else None
