"""Another run in the folder that a run is given: put aside whole, and brought back when asked for.

Whoever mistypes a seed must not lose days of training. So what another run left in the folder goes
into `replaced-KEY` beside it, and the command that made it finds it there again.
"""

from pathlib import Path

import msgspec

from shards.errors import CorruptError
from trainer.begun import BEGUN, Begun
from trainer.checkpoint import newest_key
from trainer.config import TrainConfig
from trainer.events import EVENTS
from trainer.folder import LOCK
from trainer.records import METRICS, RUN, RunRecord, read_record

_ASIDE = "replaced-"
_KEY_DIGITS = 16


def make_room(folder: Path, key: str, config: TrainConfig) -> str | None:
    """Put another run aside, then bring back what was put aside of the run with this key.

    A run that has neither a checkpoint nor a record has nothing to lose. Every file is moved by a
    rename. The manifests, by which a run is known, are the last to leave the folder and the first
    to come back, so that who is killed meanwhile leaves what the next process finishes.

    Returns:
        What to tell who gave the folder; None where no run was put aside.
    """
    other = _key_of(folder)
    said = None
    if other is not None and other != key:
        place = folder / f"{_ASIDE}{other[:_KEY_DIGITS]}"
        said = (
            f"{folder} held another run ({_differences(folder, config)}): its files are in {place},"
            " and starting it again brings them back; remove them if it is not wanted"
        )
        _move(folder, place)
    mine = folder / f"{_ASIDE}{key[:_KEY_DIGITS]}"
    if mine.is_dir():
        if newest_key(folder) is None:  # nothing is back yet: what is here is of no use
            for name in (METRICS, EVENTS):
                (folder / name).unlink(missing_ok=True)
        _move(mine, folder, back=True)
        mine.rmdir()
    return said


def _key_of(folder: Path) -> str | None:
    """Return the key of the run whose record or checkpoint is here."""
    try:
        return read_record(folder / RUN, RunRecord).run_key
    except (OSError, CorruptError):
        return newest_key(folder)


def _differences(folder: Path, config: TrainConfig) -> str:
    """Name what the two runs do not have in common, as far as the other one says it."""
    try:
        there = msgspec.to_builtins(read_record(folder / BEGUN, Begun).config)
    except (OSError, CorruptError):
        return "of other settings or data"
    here = msgspec.to_builtins(config)
    other = [f"{name} = {there[name]!r} there, {here[name]!r} here" for name in here]
    found = [text for name, text in zip(here, other, strict=True) if there[name] != here[name]]
    return ", ".join(found) or "of other data"


def _move(source: Path, target: Path, *, back: bool = False) -> None:
    """Move what is in a folder: first its record, last its manifests, or the other way round."""
    target.mkdir(exist_ok=True)

    def order(path: Path) -> tuple[int, str]:
        manifest = path.suffix == ".json" and path.name.startswith("checkpoint-")
        return 0 if path.name == RUN else 2 if manifest else 1, path.name

    for path in sorted(source.iterdir(), key=order, reverse=back):
        if path.name == LOCK or path.name.startswith(_ASIDE):
            continue
        if path.is_dir() and (target / path.name).is_dir():  # TensorBoard's
            _move(path, target / path.name)
            path.rmdir()
        else:
            path.rename(target / path.name)
