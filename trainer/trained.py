"""The model of a finished run: what `python -m trainer export` writes and `assay score` asks."""

from pathlib import Path

from torch import Tensor

from shards.errors import CorruptError, DatasetError
from trainer.checkpoint import load_checkpoint
from trainer.records import RUN, RunRecord, read_record


def load_trained(run: Path) -> tuple[RunRecord, dict[str, Tensor]]:
    """Read a finished run's record and the state of its model, verified.

    Args:
        run: the run's folder.

    Raises:
        DatasetError: `run` is not the folder of a finished run, or its last checkpoint is gone.
        CorruptError: the record or the checkpoint is not as it was written, or the checkpoint is
            not the one that the record names.
    """
    if not (run / RUN).exists():
        raise DatasetError(f"{run}: has no {RUN}: not the folder of a run that is finished")
    record = read_record(run / RUN, RunRecord)
    found = load_checkpoint(run, record.run_key)
    if found is None or found.entry.step != record.steps:
        raise DatasetError(
            f"{run}: has no checkpoint of step {record.steps}, the run's last: remove {RUN} and"
            " train again"
        )
    if found.entry.sha256 != record.checkpoint_sha256:
        raise CorruptError(
            f"{run}: the checkpoint of step {record.steps} has sha256 {found.entry.sha256}, but"
            f" {RUN} states {record.checkpoint_sha256}: remove {RUN} and train again"
        )
    return record, found.state["model"]
