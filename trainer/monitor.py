"""A run watched from outside: Prometheus text on loopback, TensorBoard event files.

Both are options (`train.prometheus_port`, `train.tensorboard`) beside `metrics.jsonl`, which is
always written. Only the first rank has them. A port that is taken is no reason to stop a run.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from shards.errors import PlatformError
from trainer.config import TrainConfig

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TENSORBOARD = "tensorboard"

HELP = {
    "step": "Steps taken or skipped.",
    "tokens": "Tokens trained on.",
    "loss": "Training loss, nats per token.",
    "grad_norm": "Gradient norm before clipping.",
    "learning_rate": "Learning rate of the hidden matrices.",
    "tokens_per_s": "Tokens a second of all ranks.",
    "mfu": "Model FLOPs a second over the peak that run.json names in mfu_peak.",
    "wait_share": "Share of a step spent waiting for data.",
    "valid_bpb": "Bits per byte of the curve's validation documents.",
    "valid_bpb_by_source": "The same of each source's documents.",
    "memory_bytes": "Most memory used so far.",
    "skipped_steps": "Steps whose batch was not learned from.",
    "rank_seconds": "Time of a rank in its steps, exchanges left out.",
    "rank_wait_seconds": "Time of a rank spent waiting for data.",
}
"""Name → what it is; in Prometheus each has the prefix `assay_`."""

Labels = tuple[tuple[str, str], ...]
Values = dict[tuple[str, Labels], float]
"""(name, labels) → the latest value."""


class Monitor:
    """Keeps the latest values and hands each new set to those who want it."""

    def __init__(self) -> None:
        self._values: Values = {}
        self._lock = threading.Lock()
        self.sinks: list[Callable[[int, Values], None]] = []
        self.active = False

    def update(self, step: int, values: Values) -> None:
        """Take the values of a step; those that it does not have stay as they were."""
        with self._lock:
            self._values = self._values | values
        for sink in self.sinks:
            sink(step, values)

    def text(self) -> str:
        """Return everything in Prometheus' text format 0.0.4."""
        with self._lock:
            values = sorted(self._values.items(), key=lambda item: list(HELP).index(item[0][0]))
        lines: list[str] = []
        for (name, labels), value in values:
            heading = f"# HELP assay_{name} {HELP[name]}"
            if heading not in lines:
                lines += [heading, f"# TYPE assay_{name} gauge"]
            inner = ",".join(f'{key}="{_escape(label)}"' for key, label in labels)
            lines.append(f"assay_{name}{f'{{{inner}}}' if inner else ''} {value!r}")
        return "".join(f"{line}\n" for line in lines)


@contextmanager
def open_monitor(
    config: TrainConfig, folder: Path, note: Callable[[str], None], *, first: bool
) -> Iterator[Monitor]:
    """Start what the settings ask for, on the first rank; it ends with the context.

    Raises:
        PlatformError: TensorBoard is asked for and not installed.
    """
    monitor = Monitor()
    with ExitStack() as stack:
        if first and config.tensorboard:
            monitor.sinks.append(stack.enter_context(_tensorboard(folder / TENSORBOARD)))
        if first and config.prometheus_port:
            monitor.active = stack.enter_context(_served(monitor, config.prometheus_port, note))
        monitor.active = monitor.active or bool(monitor.sinks)
        yield monitor


@contextmanager
def _served(monitor: Monitor, port: int, note: Callable[[str], None]) -> Iterator[bool]:
    """Answer `GET /metrics` on loopback from a thread; say whether the port could be had."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/metrics"
            body = monitor.text().encode() if found else b"see /metrics\n"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing: stderr belongs to the run."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        note(f"train.prometheus_port = {port}: {error.strerror}; the run goes on without it")
        yield False
        return
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
        thread.start()
        try:
            yield True
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Callable[[int, Values], None]]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise PlatformError(
            f"train.tensorboard = true, but TensorBoard cannot be imported ({error}); install the"
            " extra: pip install 'assay-corpus[tensorboard]', or leave it off: metrics.jsonl has"
            " the same numbers"
        ) from None
    writer = SummaryWriter(str(folder))

    def write(step: int, values: Values) -> None:
        for (name, labels), value in values.items():
            tag = "/".join([name, *(label for _, label in labels)])
            writer.add_scalar(tag, value, step)

    try:
        yield write
    finally:
        writer.close()


def _escape(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
