"""Beam worker processes on this machine, for `--workers N`: forked from one that is warm.

Beam starts N new processes for each pipeline, and a curate job has four: to import Beam and to load
the kernels takes each of them 2 s, so that small jobs were slower with two workers than with one.
Here a *pool* process imports everything once and then forks a worker each time that Beam asks for
one. What Beam starts is a client of the pool (this file, run as a script: it must import nothing
heavy at its top), which stands for the worker: it ends as the worker ends, and its end ends it.

Beam's own entry point prints some twenty log lines per worker and stage over the progress display,
and the traceback of every error, which also travels to the job through the control channel and is
reported there. Set ASSAY_DEBUG=1 to see all of it.
"""

import atexit
import importlib
import json
import logging
import os
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

_LENGTH_BYTES = 8
_PREFIX = "assay-pool-"
_LONGEST_ADDRESS = 100
"""Bytes of a socket's path: the kernel takes 107 (unix(7)), and a name is still to come."""

NO_POOL = 70
"""Exit code of a client whose pool did not start, or died (EX_SOFTWARE of sysexits.h)."""


class Pool:
    """The pool process of this process; it ends when this one does, however that is."""

    def __init__(self, preload: Sequence[str]) -> None:
        # Not an abstract socket, which every user of the machine could send requests to.
        remove_stale()
        root = _root()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=root))
        self.address = str(self._folder / "socket")
        self.made_for = _surroundings()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.worker", self.address, *preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )

    @property
    def pid(self) -> int:
        """The pool's process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can still be asked for workers."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it; workers that still run end with their job."""
        with self._process:  # closes its stdin, and waits
            pass
        shutil.rmtree(self._folder, ignore_errors=True)


def _root() -> str:
    root = tempfile.gettempdir()
    # mkdtemp makes a folder in it that is ours alone
    return root if len(os.fsencode(root)) <= _LONGEST_ADDRESS - 40 else "/tmp"


def remove_stale() -> None:
    """Remove the folders of jobs that were killed together with their pool."""
    for folder in Path(_root()).glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        with suppress(OSError):
            if pid.isdigit() and folder.stat().st_uid == os.getuid() and not _exists(int(pid)):
                shutil.rmtree(folder)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


_pools: list[Pool] = []
"""The pool in use, if there is one."""


def warm(*preload: str) -> Pool:
    """Return the pool; where there is none, start one that imports Beam and these modules.

    It needs some seconds until it can fork: who calls this early loses none of them.
    """
    if _pools and (_pools[0].made_for != _surroundings() or not _pools[0].is_alive):
        _pools.pop().close()
    if not _pools:
        _pools.append(Pool(preload))
        atexit.register(_close)
    return _pools[0]


def _close() -> None:
    while _pools:
        _pools.pop().close()
    atexit.unregister(_close)


def _surroundings() -> tuple[str | None, ...]:
    """What a process takes over at its start only, and a fork of the pool not at all."""
    return os.environ.get("PYTHONPATH"), os.environ.get("ASSAY_DEBUG")


def command() -> str:
    """Return the shell command of a worker, for Beam to run.

    A signal to the whole process group (^C, `timeout`) is for the job to answer, so the worker
    ignores it from its first moment: one that died of it would look like one out of memory. It
    ends when the job closes the channel, or is gone.
    """
    pool = warm()
    words = [sys.executable, "-I", "-S", __file__, "client", pool.address, str(pool.pid)]
    return f'trap "" INT TERM; exec {shlex.join(words)}'


def run_client(address: str, pool: int) -> NoReturn:
    """Ask the pool for a worker with this process's environment, and end as it ends."""
    _wait_for(address, pool)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address)
            request = json.dumps([str(Path.cwd()), dict(os.environ)]).encode()
            connection.sendall(len(request).to_bytes(_LENGTH_BYTES, "big") + request)
            answer = connection.recv(64)
    except OSError:
        answer = b""
    code = int(answer or NO_POOL)
    if code < 0:  # killed by a signal: so that Beam sees which
        with suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _wait_for(address: str, pool: int) -> None:
    """Wait until the pool listens; end where it will not, or the job that asked is gone."""
    job = os.getppid()
    while not Path(address).exists():
        # A pool that died stays a zombie until the job looks, but has removed its folder.
        if not Path(address).parent.exists() or not _exists(pool) or os.getppid() != job:
            sys.exit(NO_POOL)
        time.sleep(0.01)


def run_pool(address: str, preload: Sequence[str]) -> None:
    """Fork a worker for each client, until stdin is closed: the job has ended, or was killed."""
    try:
        _run_pool(address, preload)
    finally:
        shutil.rmtree(Path(address).parent, ignore_errors=True)  # a job that was killed can not
    os._exit(0)  # the job waits, and what is loaded here takes 0.4 s to be taken apart


def _run_pool(address: str, preload: Sequence[str]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for module in ("pipelines.beam", "apache_beam.runners.worker.sdk_worker_main", *preload):
        importlib.import_module(module)
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # only to be woken
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as waiting:
        listener.bind(f"{address}.new")
        listener.listen()
        Path(f"{address}.new").rename(address)  # from here on it can be connected to
        for source in (listener, woken, sys.stdin):
            waiting.register(source, selectors.EVENT_READ)
        _serve(listener, woken, waiting, [wake])


def _serve(
    listener: socket.socket,
    woken: socket.socket,
    waiting: selectors.BaseSelector,
    inherited: list[socket.socket],
) -> None:
    workers: dict[int, socket.socket] = {}
    while True:
        for key, _ in waiting.select():
            if key.fileobj is sys.stdin:
                return
            if key.fileobj is listener:
                client, _ = listener.accept()
                request = _receive(client)
                pid = os.fork()
                if pid == 0:
                    waiting.close()
                    for end in (listener, woken, client, *workers.values(), *inherited):
                        end.close()
                    _run_worker(*request)
                workers[pid] = client
                waiting.register(client, selectors.EVENT_READ)
            elif key.fileobj is woken:
                with suppress(BlockingIOError):
                    woken.recv(4096)
                for pid, code in _ended(workers):
                    waiting.unregister(workers[pid])
                    with workers.pop(pid) as client, suppress(OSError):
                        client.sendall(str(code).encode())
            else:  # the client was killed, or is closing
                for pid in [pid for pid, own in workers.items() if own is key.fileobj]:
                    os.kill(pid, signal.SIGKILL)


def _receive(client: socket.socket) -> tuple[str, dict[str, str]]:
    with client.makefile("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "big")
        request = stream.read(length)
    # A client that was killed halfway asks for nothing; its worker ends with it.
    folder, environment = json.loads(request if len(request) == length else b'["/", {}]')
    return folder, environment


def _ended(workers: dict[int, socket.socket]) -> list[tuple[int, int]]:
    """Return (process, exit code) of the workers that have ended; the code is below 0 for a signal.

    Several may end before one is asked for.
    """
    found = []
    for pid in workers:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            found.append((pid, os.waitstatus_to_exitcode(status)))
    return found


def _run_worker(folder: str, environment: dict[str, str]) -> NoReturn:
    """Be a Beam worker, in a process that was forked for it."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 1
    try:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        main()
        code = 0
    finally:
        os._exit(code)  # what the pool has open is not this process's to close


def main() -> None:
    """Run Beam's worker quietly; an error at its start is still printed."""
    quiet = not os.environ.get("ASSAY_DEBUG")
    if quiet:
        logging.disable(logging.ERROR)
    from apache_beam.runners.worker import sdk_worker_main

    if quiet:
        # The descriptor and not sys.stderr: threads of grpc write when all else has ended.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sdk_worker_main.main(sys.argv[:1])


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        run_client(sys.argv[2], int(sys.argv[3]))
    run_pool(sys.argv[1], sys.argv[2:])
