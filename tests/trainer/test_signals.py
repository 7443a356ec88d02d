import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from trainer.signals import PREEMPTED, StopFlag, Stopped, stop_signals

BLOCKED = """
import ctypes, os, signal, sys, threading
from trainer import signals

def note(name):
    print("said", name, flush=True)

signals.BLOCKED_SECONDS = 0.1
mutex = ctypes.create_string_buffer(64)  # zeros: an unlocked one, which no signal interrupts
threading.Timer(0.3, os.kill, (os.getpid(), getattr(signal, sys.argv[1]))).start()
with signals.stop_signals(signals.NOT_BEGUN), signals.even_if_blocked(note):
    if sys.argv[2] == "blocked":
        for _ in range(2):
            ctypes.CDLL(None).pthread_mutex_lock(mutex)
    threading.Event().wait(60)
"""


def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_noted_or_raised_once(number):
    with stop_signals() as flag:
        send(number, signal.SIGTERM)
        assert flag.signal == number
        with pytest.raises(Stopped, match=f"{number.name} at the end"):
            flag.at_once("at the end")
    with stop_signals("at the start") as flag:
        with pytest.raises(Stopped, match=f"{number.name} at the start"):
            send(number)
        send(signal.SIGTERM, number)  # while the first one is on its way out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_that_python_dropped_comes_up_at_the_next_block(number):
    """Inside of a finaliser or a callback of C code what is raised is printed, and forgotten."""
    kind = KeyboardInterrupt if number == signal.SIGINT else Stopped
    with stop_signals("outside") as outer:
        with suppress(kind):
            send(number)
        with pytest.raises(kind), stop_signals("inside"):
            pytest.fail("the block was entered")
        with stop_signals() as inner:  # one that looks at its flag finds it there
            assert inner.signal == number
            with pytest.raises(kind):
                inner.at_once("inside")
            inner.note()
            outer.note()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_that_a_block_did_not_look_at_is_left_to_the_one_around_it(number):
    kind = KeyboardInterrupt if number == signal.SIGINT else Stopped

    def block():
        with stop_signals():
            send(number)

    with pytest.raises(kind), stop_signals("outside"):
        block()


LATE = """
import os, signal, sys
import click
from shards import console
from trainer.cli import StoppableCommand

def leave(code, leave=sys.exit):
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
        os.kill(os.getpid(), number)
    leave(code)

@click.command("study", cls=StoppableCommand)
def command():
    if HOW == "stopped":
        os.kill(os.getpid(), signal.SIGUSR1)

console.sys.exit = leave
console.run(command, "assay")
"""


@pytest.mark.parametrize(("how", "code"), [("stopped", PREEMPTED), ("done", 0)])
def test_signals_while_a_program_leaves_change_nothing(how, code):
    done = subprocess.run(
        [sys.executable, "-c", LATE.replace("HOW", repr(how))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr


def test_a_person_is_not_made_to_wait():
    with stop_signals() as flag:
        send(signal.SIGINT)
        assert flag.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    with stop_signals("at the start"), pytest.raises(KeyboardInterrupt) as raised:
        send(signal.SIGINT)
    assert not isinstance(raised.value, Stopped)


def test_signals_are_only_noted_from_where_the_flag_says_so():
    flag = StopFlag("at the start")
    flag.note()
    flag.came(signal.SIGUSR1)
    flag.came(signal.SIGTERM)
    assert flag.name == "SIGUSR1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("command", ["train", "export"])
def test_a_signal_while_modules_are_imported_is_a_stop_where_there_is_a_run(
    tmp_path, number, command
):
    (tmp_path / "click.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\n")
    done = subprocess.run(
        [sys.executable, "-m", "trainer", command],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if command == "train":
        assert done.returncode == PREEMPTED
        assert done.stderr.startswith(f"stopped: {number.name} before a step was taken")
    else:
        assert done.returncode == -number


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
@pytest.mark.parametrize("how", ["blocked", "free"])
def test_a_signal_ends_a_process_that_cannot_handle_it_too(name, how):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, name, how],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if how == "blocked":
        assert (done.returncode, done.stdout) == (PREEMPTED, f"said {name}\n")
    else:
        assert f"Stopped: {name} before a step was taken" in done.stderr
        assert done.stdout == ""
