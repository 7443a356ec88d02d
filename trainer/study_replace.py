"""What becomes of a finished study whose folder another one is run in.

A run replaces a finished one of other data or settings in its folder. From the first such run on
the old study's record would describe runs that are gone, so it is set aside before.
"""

from pathlib import Path

from trainer.begun import definitions_of, other_settings
from trainer.config import TrainConfig
from trainer.parallel import Job
from trainer.records import RUN, STUDY, STUDY_TEXT, RunRecord, read_record
from trainer.study_records import BEFORE


def make_way(
    todo: list[Job],
    valid_hash: str,
    dataset_id: str,
    out: Path,
) -> str:
    """Set aside the record of a study whose finished runs those `todo` will replace, and say so.

    Args:
        todo: the runs that are to be made.
        valid_hash, dataset_id: of what they are tested and trained on.
        out: the study's folder.

    Returns:
        A warning that names how many there are and what differs; empty where none is replaced.
    """
    there = [job for job in todo if (job.folder / RUN).is_file()]
    if not there:
        return ""
    kept = ""
    for name in (STUDY, STUDY_TEXT):
        if (out / name).is_file():
            (out / name).replace(out / f"{BEFORE}{name}")
            kept = f"; its record is kept as {BEFORE}{STUDY}"
    one = read_record(there[0].folder / RUN, RunRecord)
    changed = "; ".join(differences(one, there[0].config, valid_hash, dataset_id))
    return (
        f"warning: {out} holds {len(there)} finished runs of another study, which this one"
        f" replaces{kept} ({there[0].name}: {changed}); to keep the runs, stop now and give another"
        " --out"
    )


def differences(run: RunRecord, config: TrainConfig, valid_hash: str, dataset_id: str) -> list[str]:
    """Say in what a finished run is another than one of `config`."""
    found = []
    if run.dataset_id != dataset_id:
        found.append(f"dataset {run.dataset_id} → {dataset_id}")
    if run.valid_hash != valid_hash:
        found.append("other validation documents")
    found += [
        f"train.{key} = {old} → {new}" for key, old, new in other_settings(run.config, config)
    ]
    if run.definitions != definitions_of(config):
        found.append("made by another version of Assay")
    return found or [f"other documents than of {run.select}"]
