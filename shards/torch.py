"""The edge to torch: batches of a loader as tensors on a device, prepared ahead on a thread.

A thread, not worker processes: the copy kernel runs without the GIL and fills a batch faster than
a process could pickle it. The only module of this package that imports torch.
"""

import queue
import threading
from typing import Any

import torch

from shards.errors import RecipeError
from shards.loader import Batch, Loader

_POLL_SECONDS = 0.1


class TorchLoader:
    """Iterates over `(inputs, targets)`: int64 tensors [b, T] on `device`; targets -1 are ignored.

    `state()` is that of the last batch handed out, however many are prepared. Use it as a context
    manager or call `close()`, so that the thread ends.
    """

    def __init__(self, loader: Loader, device: str | torch.device = "cpu", depth: int = 2) -> None:
        """Wrap `loader`, which must not be used elsewhere until `close()`.

        Args:
            loader: where to start; its state is the first batch's.
            device: where the tensors shall be; copies to a GPU are asynchronous.
            depth: batches to prepare ahead; 0 makes each when it is asked for.
        """
        if depth < 0:
            raise RecipeError(f"prefetch depth must be at least 0, got {depth}")
        self._loader = loader
        self._device = torch.device(device)
        self._state = loader.state()
        self._depth = depth
        self._stop = threading.Event()
        self._ready: queue.Queue[Any] = queue.Queue(max(depth, 1))
        self._thread: threading.Thread | None = None

    def __iter__(self) -> "TorchLoader":
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the next `(inputs, targets)`; never ends.

        Raises:
            CorruptError: a block does not match its hash (on whichever thread it was found).
        """
        item = self._produce() if self._depth == 0 else self._take()
        if isinstance(item, Exception):
            self.close()
            raise item
        inputs, targets, self._state = item
        return inputs, targets

    def state(self) -> dict[str, Any]:
        """Return the loader state after the last batch that was handed out."""
        return self._state

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`; what was prepared ahead is thrown away.

        Raises:
            TrainingError: the state does not belong to this loader's data.
        """
        self.close()
        self._loader.load_state(state)
        self._state = self._loader.state()

    def close(self) -> None:
        """End the thread and go back to the last batch handed out; iterating starts it again."""
        self._stop.set()
        if self._thread:
            self._thread.join()
        self._thread = None
        self._ready = queue.Queue(max(self._depth, 1))
        self._stop = threading.Event()
        self._loader.load_state(self._state)

    def __enter__(self) -> "TorchLoader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self) -> Any:
        if self._thread is None:
            arguments = (self._ready, self._stop)
            self._thread = threading.Thread(target=self._prefetch, args=arguments, daemon=True)
            self._thread.start()
        return self._ready.get()

    def _prefetch(self, ready: "queue.Queue[Any]", stop: threading.Event) -> None:
        """Run on the thread: put batches, or the error that ends them, until told to stop."""
        item: Any = None
        while not (stop.is_set() or isinstance(item, Exception)):
            try:
                item = self._produce()
            except Exception as error:  # raised again where the batch is taken
                item = error
            while not stop.is_set():
                try:
                    ready.put(item, timeout=_POLL_SECONDS)
                    break
                except queue.Full:
                    continue

    def _produce(self) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        batch: Batch = self._loader.next()
        return self._tensor(batch.inputs), self._tensor(batch.targets), self._loader.state()

    def _tensor(self, array: Any) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            return tensor.contiguous().pin_memory().to(self._device, non_blocking=True)
        return tensor.contiguous().to(self._device)
