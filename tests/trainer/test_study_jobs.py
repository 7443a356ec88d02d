import os
import signal
from types import SimpleNamespace

import pytest

from trainer import study_jobs
from trainer.config import TrainConfig
from trainer.signals import Stopped
from trainer.study_config import StudyConfig
from trainer.study_jobs import make_study


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_between_runs_stops_the_study_at_once(tmp_path, monkeypatch, number):
    monkeypatch.setattr(study_jobs, "choose_device", lambda _: os.kill(os.getpid(), number))
    before, study = signal.getsignal(number), StudyConfig()
    with pytest.raises(Stopped, match=f"{number.name} between runs: what is done is kept"):
        make_study(SimpleNamespace(study=study), study, TrainConfig(), tmp_path, ())
    assert signal.getsignal(number) == before
