"""A whole study, its runs side by side: the sweep, then every arm, then what came out."""

from pathlib import Path

import msgspec

from shards.console import console
from trainer.config import TrainConfig
from trainer.device import choose_device
from trainer.parallel import Job, default_jobs, run_jobs
from trainer.progress import Bars, Reporter
from trainer.records import RUN, RunRecord, StudyRecord, read_record
from trainer.study import StudyData, open_runs, run_study, tune
from trainer.study_config import StudyConfig
from trainer.study_sweep import settings, sweep_jobs, sweep_runs


def make_study(
    data: StudyData,
    study: StudyConfig,
    config: TrainConfig,
    out: Path,
    command: tuple[str, ...],
    *,
    jobs: int | None = None,
    quiet: bool = False,
) -> StudyRecord:
    """Run what is not done yet, `jobs` at a time (default: one a core, one on a GPU), and compare.

    Args:
        data, study, config: the study and what it reads; `data.study` is what is run.
        out: folder for the runs and the record.
        command: arguments after `python -m trainer` of one run, without its arm, seed and folder.
        jobs: runs at once.
        quiet: show nothing.

    Raises:
        TrainingError, CorruptError: from a run.
        Stopped, KeyboardInterrupt: it was told to stop; every run has written its checkpoint.
    """
    study = data.study  # the data has decided what the recipe leaves open
    command = (
        *command,
        f"--set=study.random_like={msgspec.json.encode(study.random_like).decode()}",
    )
    on_cpu = choose_device(config).type == "cpu"
    runs = len(study.arm_names) * len(study.seeds)
    at_once = jobs or (default_jobs(config.threads) if on_cpu else 1)
    if at_once > 1:
        todo = sweep_jobs(data.sweep_views, data.valid, study, config, out, command)
        with Bars(quiet=quiet) as bars:
            run_jobs(todo, at_once, bars)
        tuned, _ = tune(data, study, config, out, Reporter(quiet=True))
        command = (*command, *settings(tuned)) if study.sweep else command
        todo = open_runs(data, study, tuned, out, command)
        _warn(todo)
        if len(todo) < runs and not quiet:
            console.print(f"{runs - len(todo)} of {runs} runs are up to date")
        with Bars(quiet=quiet) as bars:
            run_jobs(todo, at_once, bars)
    elif study.sweep is None:
        _warn(open_runs(data, study, config, out, command))
    swept = len(sweep_runs(study.sweep, config)) if study.sweep else 0
    with Reporter(quiet=quiet or at_once > 1, runs=runs + swept) as reporter:
        return run_study(data, study, config, out, reporter)


def _warn(todo: list[Job]) -> None:
    if lost := replaced(todo):
        console.print(lost, soft_wrap=True, highlight=False, markup=False)


def replaced(todo: list[Job]) -> str:
    """Say which finished runs of another study the runs that are to be made will replace."""
    there = [job.folder for job in todo if (job.folder / RUN).is_file()]
    if not there:
        return ""
    one = read_record(there[0] / RUN, RunRecord)
    return (
        f"warning: {there[0].parent} holds {len(there)} finished runs of another study, which this"
        f" one replaces ({there[0].name}: {one.tokens:,} tokens of dataset {one.dataset_id},"
        f" {one.select}); to keep them, stop now and give another --out"
    )
