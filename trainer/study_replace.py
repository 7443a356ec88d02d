"""What becomes of a finished study whose folder another one is run in.

A run replaces a finished one of other data or settings in its folder. From the first such run on
the old study's record would describe runs that are gone, so it is set aside before.
"""

from pathlib import Path

import msgspec

from trainer.begun import definitions_of
from trainer.config import TrainConfig
from trainer.parallel import Job
from trainer.records import RUN, STUDY, STUDY_TEXT, RunRecord, read_record
from trainer.study_records import BEFORE


def make_way(
    todo: list[Job],
    config: TrainConfig,
    valid_hash: str,
    dataset_id: str,
    out: Path,
    own: tuple[str, ...] = (),
) -> str:
    """Set aside the record of a study whose finished runs those `todo` will replace, and say so.

    Args:
        todo: the runs that are to be made.
        config: their settings.
        valid_hash, dataset_id: of what they are tested and trained on.
        out: the study's folder.
        own: settings that each run has of its own, besides the seed.

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
    changed = "; ".join(differences(one, config, valid_hash, dataset_id, own))
    return (
        f"warning: {out} holds {len(there)} finished runs of another study, which this one"
        f" replaces{kept} ({there[0].name}: {changed}); to keep the runs, stop now and give another"
        " --out"
    )


def differences(
    run: RunRecord, config: TrainConfig, valid_hash: str, dataset_id: str, own: tuple[str, ...] = ()
) -> list[str]:
    """Say in what a finished run is another than one of `config`; seed and `own` are left out."""
    found = []
    if run.dataset_id != dataset_id:
        found.append(f"dataset {run.dataset_id} → {dataset_id}")
    if run.valid_hash != valid_hash:
        found.append("other validation documents")
    old, new = msgspec.to_builtins(run.config), msgspec.to_builtins(config)
    found += [
        f"train.{key} = {old[key]} → {new[key]}"
        for key in new
        if key not in {"seed", *own} and old[key] != new[key]
    ]
    if run.definitions != definitions_of(config):
        found.append("made by another version of Assay")
    return found or [f"other documents than of {run.select}"]
