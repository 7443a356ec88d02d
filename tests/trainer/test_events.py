import pytest

from shards.errors import TrainingError
from trainer.events import EVENTS, Event, add_early_stop, add_event, append_line, read_events
from trainer.records import RUN


def test_an_early_stop_is_at_the_newest_checkpoint_and_said_once(tmp_path):
    for name in ("checkpoint-00000020.json", "checkpoint-00000003.json", "checkpoint-x.json"):
        (tmp_path / name).touch()
    add_event(tmp_path, Event(4, "skipped", "loss nan is not finite"))
    for _ in range(2):
        add_early_stop(tmp_path, "SIGUSR1")
    assert read_events(tmp_path)[1:] == [Event(20, "stopped", "SIGUSR1")]


def test_a_finished_run_has_not_stopped(tmp_path):
    (tmp_path / RUN).touch()
    add_early_stop(tmp_path, "SIGTERM")
    assert not (tmp_path / EVENTS).exists()


def test_a_line_that_is_not_there_whole_is_an_error():
    class Short:
        def write(self, data):
            return len(data) - 1

    with pytest.raises(OSError, match="No space left"):
        append_line(Short(), b"{}")


def test_an_event_that_cannot_be_written_names_its_file_and_step(tmp_path):
    (tmp_path / EVENTS).symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"events\.jsonl: cannot be written at step 7:"):
        add_event(tmp_path, Event(7, "skipped", ""))
