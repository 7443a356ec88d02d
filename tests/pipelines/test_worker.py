"""Workers are forked from a warm process, and end as Beam and their job need it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pipelines import temporary, worker

SLEEPER = """
import os, sys, time
from pathlib import Path
print(os.getcwd(), os.environ["MARK"], file=open("seen", "w"), flush=True)
os.rename("seen", "ready")
{end}
"""


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """A pool whose workers run `worker_body.py` in place of Beam's entry point."""
    stand_in = tmp_path / "modules" / "apache_beam" / "runners" / "worker"
    stand_in.mkdir(parents=True)
    (stand_in / "sdk_worker_main.py").write_text(
        "from pathlib import Path\ndef main(argv):\n    exec(Path('worker_body.py').read_text())\n"
    )
    for folder in (stand_in, stand_in.parent, stand_in.parent.parent):
        (folder / "__init__.py").write_text("")
    (tmp_path / "modules" / "sitecustomize.py").write_text(
        "import sys, types\nsys.modules['pipelines.beam'] = types.ModuleType('pipelines.beam')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)
    yield worker.warm()
    worker._close()


def start(tmp_path, end, mark="first"):
    (tmp_path / "worker_body.py").write_text(SLEEPER.format(end=end))
    (tmp_path / "ready").unlink(missing_ok=True)
    environment = {**os.environ, "MARK": mark}
    return subprocess.Popen(worker.command(), shell=True, env=environment)


def until(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("waited for a minute")


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_worker_has_its_clients_folder_and_environment_and_its_end(pool, tmp_path):
    for mark in ("first", "second"):
        assert start(tmp_path, "", mark).wait(60) == 0
        assert (tmp_path / "ready").read_text().split() == [str(tmp_path), mark]
    assert start(tmp_path, "os._exit(3)").wait(60) == 3
    assert start(tmp_path, "raise ValueError").wait(60) == 1
    assert start(tmp_path, "os.kill(os.getpid(), 9)").wait(60) == -signal.SIGKILL


def test_a_worker_ends_with_its_client(pool, tmp_path):
    client = start(
        tmp_path, "print(os.getpid(), file=open('pid', 'w'), flush=True); time.sleep(600)"
    )
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
    client.kill()
    client.wait(60)
    until(lambda: is_gone(int((tmp_path / "pid").read_text())))


def test_a_pool_that_died_is_replaced(pool):
    pool._process.kill()
    pool._process.wait(60)
    assert worker.warm() is not pool
    assert worker.warm().is_alive


def test_the_pool_of_a_job_that_was_killed_ends_and_leaves_nothing(tmp_path):
    code = "from pipelines import worker; import time; print(worker.warm().address, flush=True)"
    job = subprocess.Popen(
        [sys.executable, "-c", f"{code}; time.sleep(600)"], stdout=subprocess.PIPE, text=True
    )
    with job:
        folder = Path(job.stdout.readline()).parent
        job.kill()
    until(lambda: not folder.exists())


def test_a_pool_that_cannot_start_ends_the_client_and_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['pipelines.beam'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pool = worker.warm()
    try:
        client = subprocess.Popen(worker.command(), shell=True)
        assert client.wait(60) == worker.NO_POOL
        until(lambda: not Path(pool.address).parent.exists())
    finally:
        worker._close()


def test_a_client_ends_with_the_job_though_the_pool_never_listens(tmp_path):
    code = f"""
import subprocess, sys
from pipelines import worker
words = [sys.executable, worker.__file__, "client", {str(tmp_path / "never")!r}, "1"]
print(subprocess.Popen(words, stdout=subprocess.DEVNULL).pid, flush=True)
sys.stdin.read()
"""
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as job:
        client = int(job.stdout.readline())
        assert not is_gone(client)
        job.kill()
    until(lambda: is_gone(client))


def test_a_long_temp_folder_and_what_killed_jobs_left(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 110)
    long.mkdir()
    monkeypatch.setattr(worker.tempfile, "tempdir", str(long))
    pool = worker.Pool([])
    assert len(pool.address) < worker._LONGEST_ADDRESS
    pool.close()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with TemporaryDirectory(dir="/tmp") as short:
        stale, ours = (Path(short, f"assay-pool-{pid}-x") for pid in (dead.pid, os.getpid()))
        for folder in (stale, ours):
            folder.mkdir()
        monkeypatch.setattr(worker.tempfile, "tempdir", short)
        temporary.remove_stale()  # as `assay gc` does
        assert not stale.exists()
        assert ours.exists()
