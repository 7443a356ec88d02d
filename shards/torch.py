"""The edge to torch: batches of a loader as tensors on a device, prepared ahead on a thread.

A thread, not worker processes: the copy kernel runs without the GIL and fills a batch faster than
a process could pickle it. The only module of this package that imports torch.
"""

import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from shards.errors import RecipeError
from shards.loader import Batches

_POLL_SECONDS = 0.1
_UNSHARED = 3
"""What `sys.getrefcount` says in `_Spare.take` of an array that is in its list only: the list, the
variable there, and the argument. A tensor, or a view of it, that shares the memory adds one."""


class TorchLoader:
    """Iterates over `(inputs, targets)`: int64 tensors [b, T] on `device`; targets -1 are ignored.

    Both are views of one tensor [b, T + 1], so nothing is copied twice and one transfer does for
    a GPU, from a ring of pinned buffers that are used again; call `contiguous()` where it matters.
    Memory of a batch on the CPU is used again only when its tensors are gone.

    `state()` is that of the last batch handed out, however many are prepared. Use it as a context
    manager or call `close()`, so that the thread ends.
    """

    def __init__(self, loader: Batches, device: str | torch.device = "cpu", depth: int = 2) -> None:
        """Wrap `loader`, which must not be used elsewhere until `close()`.

        Args:
            loader: where to start; its state is the first batch's.
            device: where the tensors shall be; copies to a GPU are asynchronous, on a stream of
                their own, for which the stream that is current in `next` waits.
            depth: batches to prepare ahead; 0 makes each when it is asked for.
        """
        if depth < 0:
            raise RecipeError(f"prefetch depth must be at least 0, got {depth}")
        self._loader = loader
        self._device = torch.device(device)
        self._state = loader.state()
        self._depth = depth
        shape = (loader.rows, loader.sequence_length + 1)
        self._lane = CudaLane(self._device) if self._device.type == "cuda" else None
        # One batch is being filled and one was just handed out, beside those that are ready.
        self._ring = Ring(self._lane, shape, depth + 2) if self._lane else None
        self._spare = _Spare(shape, depth + 4)
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
        sent, done, self._state = item
        if self._lane:
            self._lane.receive(sent, done)
            return sent[0][:, :-1], sent[-1][:, 1:]
        inputs, targets = sent
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

    def _produce(self) -> tuple[Any, Any, dict[str, Any]]:
        """Return tensors, the event that says when they are there, and the state after them."""
        if self._ring:
            return *self._ring.take(self._loader), self._loader.state()
        batch = self._loader.next(self._spare.take())
        inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
        if self._device.type != "cpu":
            inputs, targets = inputs.to(self._device), targets.to(self._device)
        return (inputs, targets), None, self._loader.state()


class _Spare:
    """Arrays for batches, used again once no tensor is left that shares their memory.

    New memory for each batch costs 3 µs in page faults, a fifth of making the batch.
    """

    def __init__(self, shape: tuple[int, int], count: int) -> None:
        self._shape, self._count = shape, count
        self._arrays: list[npt.NDArray[np.int64]] = []

    def take(self) -> npt.NDArray[np.int64]:
        """Return an array, int64 of the shape, that nobody else holds."""
        for array in self._arrays:
            if sys.getrefcount(array) == _UNSHARED:
                return array
        made = np.empty(self._shape, np.int64)
        if len(self._arrays) < self._count:
            self._arrays.append(made)
        return made


class CudaLane:
    """The way to a GPU: pinned memory here, copies on a stream of their own, and who waits when.

    Has never run on a GPU; what it must keep to is tested with a lane that copies late.
    """

    def __init__(self, device: torch.device) -> None:
        """Take the device that is current on this thread, where `device` has no number.

        The thread that sends would have another: each starts with device 0.
        """
        index = torch.cuda.current_device() if device.index is None else device.index
        self.device = torch.device("cuda", index)
        self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def pinned(self, shape: tuple[int, int]) -> torch.Tensor:
        """Return int64 memory that the GPU can read by itself; call it on the caller's thread."""
        return torch.empty(shape, dtype=torch.int64, pin_memory=True)

    def send(self, buffers: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], Any]:
        """Start copying; return what will be there, and the event after which it is."""
        with torch.cuda.stream(self._stream):
            sent = [buffer.to(self.device, non_blocking=True) for buffer in buffers]
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._stream)
        return sent, done

    def receive(self, sent: Sequence[torch.Tensor], done: Any) -> None:
        """Let what the caller's stream does next wait for a copy, without waiting here.

        The memory was taken on the sending stream; `record_stream` keeps it from being given to a
        later copy while the caller's stream still works with it.
        """
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(done)
        for tensor in sent:
            tensor.record_stream(stream)


class Ring:
    """Pinned buffers for batches on their way; each is filled again only when it has left."""

    def __init__(self, lane: CudaLane, shape: tuple[int, int], count: int) -> None:
        """Pin `count` times memory for tokens, and for targets that are no view of them."""
        self._lane = lane
        self._slots = [(lane.pinned(shape), lane.pinned(shape)) for _ in range(count)]
        self._done: list[Any] = [None] * count
        self._next = 0

    def take(self, loader: Batches) -> tuple[list[torch.Tensor], Any]:
        """Make the next batch in a slot whose copy is done, and start copying it.

        Returns:
            What `CudaLane.send` does, of tokens and, where some rows are short, of targets; both
            [b, T + 1], the targets from their second column on.
        """
        slot, self._next = self._next, (self._next + 1) % len(self._slots)
        if self._done[slot] is not None:
            self._done[slot].synchronize()
        tokens, targets = self._slots[slot]
        batch = loader.next(tokens.numpy())
        if not batch.full:
            targets.numpy()[:, 1:] = batch.targets
        sent, self._done[slot] = self._lane.send([tokens] if batch.full else [tokens, targets])
        return sent, self._done[slot]


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
