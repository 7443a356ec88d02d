"""The edge to torch: batches of a loader as tensors on a device, prepared ahead on a thread.

A thread, not worker processes: the copy kernel runs without the GIL and fills a batch faster than
a process could pickle it. The only module of this package that imports torch.
"""

import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from shards.errors import RecipeError
from shards.loader import Batches

_POLL_SECONDS = 0.1


class TorchLoader:
    """Iterates over `(inputs, targets)`: int64 tensors [b, T] on `device`; targets -1 are ignored.

    `state()` is that of the last batch handed out, however many are prepared. Use it as a context
    manager or call `close()`, so that the thread ends.
    """

    def __init__(self, loader: Batches, device: str | torch.device = "cpu", depth: int = 2) -> None:
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
        self._buffer = np.empty((loader.rows, loader.sequence_length + 1), np.int64)
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
        batch = self._loader.next(self._buffer)
        return self._tensor(batch.inputs), self._tensor(batch.targets), self._loader.state()

    def _tensor(self, array: Any) -> torch.Tensor:
        """Copy an array to a tensor of its own, contiguous, on the device."""
        tensor = torch.from_numpy(array).clone(memory_format=torch.contiguous_format)
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)


class LoaderDataset(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """The same batches for code that expects a torch dataset.

        batches = DataLoader(LoaderDataset(loader), batch_size=None)

    Items are whole batches, `(inputs, targets)` as int64 tensors [b, T], hence `batch_size=None`;
    they never end, and a second iteration goes on where the first was left. `state_dict` and
    `load_state_dict` are what torchdata's `StatefulDataLoader` and others look for; the state is
    that of the last batch handed out.
    """

    def __init__(self, loader: Batches) -> None:
        """Wrap `loader`, which must not be used elsewhere meanwhile."""
        self._loader = loader

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield batches without end.

        Raises:
            RecipeError: in a worker process, where each worker would give the same batches, and
                the state would stay behind.
            CorruptError: a block does not match its hash.
        """
        worker = get_worker_info()
        if worker is not None:
            raise RecipeError(
                f"num_workers = {worker.num_workers}: the loader needs no worker processes; use"
                " num_workers = 0, or shards.torch.TorchLoader to prepare batches on a thread"
            )
        while True:
            batch = self._loader.next()
            yield torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)

    def state_dict(self) -> dict[str, Any]:
        """Return plain data from which `load_state_dict` goes on with the next batch."""
        return self._loader.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            TrainingError: the state does not belong to this loader's data.
        """
        self._loader.load_state(state)
