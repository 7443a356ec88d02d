"""A whole study, its runs side by side: the sweep, then every arm, then what came out."""

from pathlib import Path

import msgspec

from shards.console import console
from trainer.config import TrainConfig
from trainer.device import choose_device
from trainer.parallel import default_jobs, run_jobs
from trainer.progress import Bars, Reporter
from trainer.records import StudyRecord
from trainer.signals import stop_signals
from trainer.study import StudyData, open_runs, run_study, tune, warn_of_replaced
from trainer.study_config import StudyConfig
from trainer.study_sweep import settings, sweep_jobs, sweep_runs

BETWEEN_RUNS = "between runs: what is done is kept"
"""Where a signal comes that no run handles: the study opens, compares, or writes whole files."""


@stop_signals(BETWEEN_RUNS)
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
        warn_of_replaced(data, todo, out)
        with Bars(quiet=quiet) as bars:
            run_jobs(todo, at_once, bars)
        tuned, _ = tune(data, study, config, out, Reporter(quiet=True))
        command = (*command, *settings(tuned)) if study.sweep else command
        todo = open_runs(data, study, tuned, out, command)
        warn_of_replaced(data, todo, out)
        if len(todo) < runs and not quiet:
            console.print(f"{runs - len(todo)} of {runs} runs are up to date")
        with Bars(quiet=quiet) as bars:
            run_jobs(todo, at_once, bars)
    swept = len(sweep_runs(study.sweep, config)) if study.sweep else 0
    with Reporter(quiet=quiet or at_once > 1, runs=runs + swept) as reporter:
        return run_study(data, study, config, out, reporter)
