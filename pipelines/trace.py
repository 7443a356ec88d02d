"""From a place in a training run back to the text: run → sample → documents → source records.

Steps count from 1, as in the run's metrics: step s trains on the loader's batch s - 1. In a batch
of B samples, row j of rank r among W is global sample index g = (s - 1)·B + r + j·W, and the
loader (`shards.batches`) says which tokens of the selection that is. So the way back is arithmetic
and one look-up a document; nothing is written while training but, before the first step, what
decides the batches (`begun.json`; for an arm that a study drew, its documents in `documents.npz`).
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pipelines.lookup import Lookup
from shards.batches import open_batches, order_definitions
from shards.cache import CacheOptions
from shards.dataset import Span, TokenDataset, TokenView
from shards.errors import DatasetError, RecipeError
from shards.loader import Place
from shards.manifest import MANIFEST, read_manifest
from shards.mixture_config import MixtureConfig, PackingName
from shards.remote import is_remote
from shards.view_file import VIEW, read_view
from tokenizer.folder import INFO, read_info
from tokenizer.model import Tokenizer

RUN, BEGUN = "run.json", "begun.json"
_ANCESTORS = 4
"""How far above a run's folder its dataset is looked for (a chain keeps both in one folder)."""


class Settings(msgspec.Struct, frozen=True):
    """What decides the batches of a run, out of its `config`."""

    sequence_length: Annotated[int, Meta(ge=1)]
    batch_size: Annotated[int, Meta(ge=1)]
    packing: PackingName = "none"
    window_mb: int = 0
    mixture: MixtureConfig | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What a run's record must say so that its samples can be found again.

    `draw`: "all" where the run read what `select` keeps, else in words what of it.
    """

    dataset_id: str
    select: str
    draw: str = "all"
    selection_hash: str
    seed: int
    steps: int
    config: Settings
    definitions: dict[str, str] = {}
    facts: dict[str, Any] = {}
    finished: bool = True


class Part(msgspec.Struct, frozen=True):
    """The tokens of one document in a sample, in the order of the sample.

    `document` is the row of the documents dataset as `assay explain` shows it, with `path` and
    `position` of its record; `sample_text` is what the `tokens` tokens from `first_token` spell,
    None where the tokenizer is not at hand.
    """

    doc_id: str
    first_token: int
    tokens: int
    sample_text: str | None
    document: dict[str, Any]


class Trace(msgspec.Struct, frozen=True):
    """Where a row of a batch came from.

    `source` is that of a mixture, else empty; `epoch` and `sample` are the source's: how often it
    was read before, and the sample's number in the order of its documents (of its packed rows).
    `draw` says what of its selection the run read: "all", or which documents a study drew. Of a run
    that is not `finished`, this is what the step reads, whether it was taken yet or not.
    """

    step: int
    rank: int
    row: int
    g: int
    source: str
    epoch: int
    sample: int
    finished: bool
    draw: str
    tokens: str
    documents: str
    parts: list[Part]


def read_run(folder: Path) -> Run:
    """Read the record of a run, or of one that has begun and is not finished.

    Raises:
        DatasetError: there is none, or it was written by another trainer.
    """
    path = folder / RUN
    if not path.is_file():
        path = folder / BEGUN
    try:
        run = msgspec.json.decode(path.read_bytes(), type=Run)
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(
            f"{folder}: not a run (no {RUN} and no {BEGUN}); give the folder of one run: of a"
            " study, one of the folders beside study.json"
        ) from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not a run's record: {error}") from None
    for name, here in order_definitions(run.config).items():
        there = run.definitions.get(name, here)
        if there != here:
            raise DatasetError(
                f"{path}: the run read its samples in the {name} {there!r}, this version of Assay"
                f" knows {here!r} only"
            )
    return msgspec.structs.replace(run, finished=path.name == RUN)


def global_index(run: Run, step: int, rank: int, row: int, world_size: int) -> int:
    """Return the global sample index g of a row.

    Raises:
        RecipeError: the run has no such step, rank or row.
    """
    B = run.config.batch_size
    if world_size < 1 or B % world_size:
        raise RecipeError(f"--world-size {world_size} does not divide the run's batch of {B} rows")
    for name, value, first, last in (
        ("--step", step, 1, run.steps),
        ("--rank", rank, 0, world_size - 1),
        ("--row", row, 0, B // world_size - 1),
    ):
        if not first <= value <= last:
            raise RecipeError(f"{name} {value}: this run has {first} to {last}")
    return (step - 1) * B + rank + row * world_size


def trace(
    folder: Path,
    step: int,
    rank: int = 0,
    row: int = 0,
    *,
    world_size: int | None = None,
    tokens: str | Path | None = None,
    documents: Path | None = None,
) -> Trace:
    """Find the documents of one row of one training step.

    Args:
        folder: of a run, finished or not.
        step: from 1, as in the run's metrics.
        rank, row: the row of the batch that this rank had; both from 0.
        world_size: of the run; None: as its record says, or 1.
        tokens: the tokens dataset, a folder or a URL; None: where the run says, or the one near
            the run that has the recorded id.
        documents: its parent; None: where it was, or near the tokens.

    Raises:
        DatasetError: a run, dataset or document that is not there or not the recorded one.
        CorruptError: bytes that do not match their hash.
        RecipeError: the run has no such step, rank or row.
    """
    run = read_run(folder)
    world_size = world_size or int(run.facts.get("world_size", 1))
    g = global_index(run, step, rank, row, world_size)
    place = str(tokens or _recorded(run) or _near(folder, run.dataset_id, "tokens"))
    with tempfile.TemporaryDirectory() as cache, closing(_open(place, cache)) as dataset:
        found = open_batches(_view(dataset, run, folder), run.config, run.seed).place(g)
        manifest = dataset.manifest
        (parent,) = manifest.content.parents
        beside = folder if is_remote(place) else Path(place)
        data = documents or _parent(beside, parent, manifest.run.get("data"))
        if read_manifest(data).dataset_id != parent:
            raise DatasetError(f"{data}: is not the dataset {parent} that {place} was made from")
        lookup = Lookup(str(data))
        decode = _decoder(beside, found.view)
        parts = [
            Part(
                doc_id=span.doc_id.hex(),
                first_token=span.start,
                tokens=span.length,
                sample_text=decode(at, span) if decode else None,
                document=lookup.by_doc_id(span.doc_id.hex()),
            )
            for at, span in _spans(found)
        ]
    return Trace(
        step=step,
        rank=rank,
        row=row,
        g=g,
        source=found.source,
        epoch=found.epoch,
        sample=found.sample,
        finished=run.finished,
        draw=run.draw,
        tokens=place,
        documents=str(data),
        parts=parts,
    )


def _recorded(run: Run) -> str | None:
    """Return where the run says that its tokens are, if they are (still) there."""
    place = run.facts.get("data")
    if not isinstance(place, str) or not (is_remote(place) or _has_id(Path(place), run.dataset_id)):
        return None
    return place


def _open(place: str, cache: str) -> TokenDataset:
    """Open the tokens; of a remote dataset only the blocks that are looked at come, to `cache`."""
    return TokenDataset.open(place, CacheOptions(Path(cache)) if is_remote(place) else None)


def _view(dataset: TokenDataset, run: Run, folder: Path) -> TokenView:
    """Return the documents that the run in `folder` read: what it selected, or what it drew."""
    place = dataset.location
    if dataset.dataset_id != run.dataset_id:
        raise DatasetError(
            f"{place}: is dataset {dataset.dataset_id}, the run read {run.dataset_id}"
        )
    drawn = folder / VIEW
    if run.draw == "all":
        view = dataset.select(run.select)
    elif drawn.is_file():
        view = read_view(drawn, dataset, run.select, run.draw)
    else:
        raise DatasetError(
            f"{drawn}: is gone, which says what of {run.select!r} the run drew ({run.draw}):"
            " restore it, or remove the run's folder and run it again"
        )
    if view.selection_hash != run.selection_hash:
        what = f"{run.select!r} now keeps" if run.draw == "all" else f"{drawn} has"
        raise DatasetError(
            f"{place}: {what} other documents than the run read (selection {view.selection_hash},"
            f" recorded {run.selection_hash}); if a study's arm drew them before Assay kept a list,"
            " they cannot be traced: remove the run's folder and run it again"
        )
    return view


def _spans(place: Place) -> Iterator[tuple[int, Span]]:
    """Yield each span of a sample with its place in the selection's token stream."""
    for start, length in place.ranges:
        at = start
        for span in place.view.locate(start, length):
            yield at, span
            at += span.length


def _decoder(place: Path, view: TokenView) -> Callable[[int, Span], str] | None:
    """Return what spells tokens of the view, or None if the tokenizer is not to be found."""
    wanted = view.dataset.metadata.tokenizer_sha256
    recorded = view.dataset.manifest.run.get("tokenizer")
    candidates = [Path(recorded)] if isinstance(recorded, str) else []
    candidates += [path.parent for path in sorted(place.absolute().parent.glob(f"*/{INFO}"))]
    for folder in candidates:
        try:
            if folder.is_dir() and read_info(folder).sha256 != wanted:
                continue
            tokenizer = Tokenizer.load(folder)
        except DatasetError:
            continue
        if tokenizer.sha256 == wanted:
            return lambda at, span: tokenizer.decode(view.tokens_at(at, span.length).tolist())
    return None


def _parent(place: Path, dataset_id: str, recorded: Any) -> Path:
    """Find the documents dataset that a tokens dataset was made from."""
    if isinstance(recorded, str) and _has_id(Path(recorded), dataset_id):
        return Path(recorded)
    return _near(place, dataset_id, "documents")


def _near(folder: Path, dataset_id: str, kind: str) -> Path:
    """Find the dataset with this id in a folder beside `folder` or above it."""
    for above in list(folder.absolute().parents)[:_ANCESTORS]:
        for path in sorted(above.glob(f"*/{MANIFEST}")):
            if _has_id(path.parent, dataset_id):
                return path.parent
    raise DatasetError(
        f"{folder}: the {kind} dataset {dataset_id} is not near it; say where it is with --{kind}"
    )


def _has_id(folder: Path, dataset_id: str) -> bool:
    try:
        return read_manifest(folder).dataset_id == dataset_id
    except DatasetError:
        return False
