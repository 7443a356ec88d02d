"""Another run in the folder that a run is given: put aside whole, and brought back when asked for.

Whoever mistypes a seed must not lose days of training. So what another run left in the folder goes
into `replaced-KEY` beside it, and the command that made it, or its study, finds it there again.
Only what a run writes is moved: a dataset in the same folder may be what the new run reads.
"""

from collections.abc import Iterator
from pathlib import Path

from shards.console import console
from shards.errors import CorruptError
from shards.view_file import VIEW
from trainer.begun import BEGUN, Begun, definitions_of, other_settings
from trainer.checkpoint import STEM, newest_key
from trainer.config import TrainConfig
from trainer.events import EVENTS
from trainer.monitor import TENSORBOARD
from trainer.records import METRICS, RUN, VALID, RunRecord, read_record

_ASIDE = "replaced-"
_KEY_DIGITS = 16
_WRITTEN = (RUN, BEGUN, METRICS, EVENTS, VALID, VIEW)


def is_aside(folder: Path, key: str) -> bool:
    """Tell whether the run with this key, or a part of it, is put aside in its folder."""
    place = _place(folder, key)
    return place.is_dir() and any(_files_of_run(place))


def make_room(folder: Path, key: str, config: TrainConfig) -> None:
    """Put another run aside, then bring back what was put aside of the run with this key.

    The caller holds the folder (`claim`). A run that has neither a checkpoint nor a record has
    nothing to lose. Every file is moved by a rename. The manifests, by which a run is known, are
    the last to leave the folder and the first to come back, so that who is killed meanwhile leaves
    what the next process finishes.

    A run that is put aside is told on stderr, whatever --quiet says: whoever mistyped a seed should
    see it.
    """
    other = _key_of(folder)
    if other is not None and other != key:
        place = _place(folder, other)
        said = (
            f"{folder} held another run ({_differences(folder, config)}): its files are in {place},"
            " and starting it again brings them back; remove them if it is not wanted"
        )
        _move(folder, place)
        console.print(said, soft_wrap=True, highlight=False, markup=False)
    mine = _place(folder, key)
    if mine.is_dir():
        if newest_key(folder) is None:  # nothing is back yet: what is here is of no use
            for name in (METRICS, EVENTS):
                (folder / name).unlink(missing_ok=True)
        _move(mine, folder, back=True)
        if not any(mine.iterdir()):
            mine.rmdir()


def _place(folder: Path, key: str) -> Path:
    """Return where the files of the run with this key are put aside."""
    return folder / f"{_ASIDE}{key[:_KEY_DIGITS]}"


def _files_of_run(folder: Path) -> Iterator[Path]:
    """Yield what a run writes into its folder, but for the lock."""
    for path in folder.iterdir():
        if path.name == TENSORBOARD or (path.is_file() and _is_written(path.name)):
            yield path


def _is_written(name: str) -> bool:
    return name in _WRITTEN or name.startswith(STEM)


def _key_of(folder: Path) -> str | None:
    """Return the key of the run whose record or checkpoint is here."""
    try:
        return read_record(folder / RUN, RunRecord).run_key
    except (OSError, CorruptError):
        return newest_key(folder)


def _differences(folder: Path, config: TrainConfig) -> str:
    """Name what the two runs do not have in common, as far as the other one says it."""
    try:
        there = read_record(folder / BEGUN, Begun)
    except (OSError, CorruptError):
        return "of other settings or data"
    found = [
        f"{name} = {old!r} there, {new!r} here"
        for name, old, new in other_settings(there.config, config)
    ]
    if there.definitions != definitions_of(there.config):
        found.append("made by another version of Assay, which alone goes on with it")
    return ", ".join(found) or "of other data"


def _move(source: Path, target: Path, *, back: bool = False) -> None:
    """Move a run's files: first its record, last its manifests, or the other way round."""
    target.mkdir(exist_ok=True)

    def order(path: Path) -> tuple[int, str]:
        manifest = path.suffix == ".json" and path.name.startswith(STEM)
        return 0 if path.name == RUN else 2 if manifest else 1, path.name

    for path in sorted(_files_of_run(source), key=order, reverse=back):
        if path.is_dir() and (target / path.name).is_dir():  # TensorBoard's, of a move cut off
            for file in path.iterdir():
                file.rename(target / path.name / file.name)
            path.rmdir()
        else:
            path.rename(target / path.name)
