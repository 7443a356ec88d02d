"""The processes that make one run together: `torchrun --nproc-per-node 2 -m trainer train …`.

Every rank holds the same weights and takes its rows of each batch; what they must agree on goes
through here. A run of one process has `ALONE`, for which all of it is the identity. Small values
and objects travel over gloo whatever the device, so that no step waits for the GPU to be told a
number.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from shards.errors import RecipeError, TrainingError
from trainer.config import TrainConfig
from trainer.watch import SILENT_SECONDS, Watch


class Ranks:
    """One process alone; also what the ranks of a group have in common."""

    rank = 0
    world_size = 1

    @property
    def first(self) -> bool:
        """Whether this rank writes the records."""
        return self.rank == 0

    def gather(self, values: list[float]) -> list[list[float]]:
        """Return the values (float64, as many on each) of all ranks, in the order of ranks."""
        return [values]

    def gather_objects(self, value: Any) -> list[Any]:
        """Return the values, which can be pickled, of all ranks, in the order of ranks."""
        return [value]

    def share(self, value: Any) -> Any:
        """Return the first rank's value, which can be pickled; that of others is not looked at."""
        return value

    def post(self, name: str, text: str) -> None:
        """Leave a text for all ranks to read, once for each name; on any thread, without waiting.

        Raises:
            TrainingError: the store of the job is gone.
        """

    def posted(self, name: str) -> list[str] | None:
        """Return what every rank has left under a name; None as long as one has not.

        Raises:
            TrainingError: the store of the job is gone.
        """
        return None

    def transpose(self, shares: Tensor) -> Tensor:
        """Return row `rank` of every rank's `shares` `[world_size, n]`, in the order of ranks."""
        return shares

    def join(self, share: Tensor) -> Tensor:
        """Return all ranks' shares, `[n]` each, as `[world_size * n]`."""
        return share

    def together(self) -> AbstractContextManager[None]:
        """Mark code whose collectives are torch's own; their work on a GPU is done at its end."""
        return nullcontext()


ALONE = Ranks()


class Group(Ranks):
    """One of several ranks; made by `join_ranks`.

    Every method raises TrainingError, with the number of the rank that is to blame, when another
    rank is gone or does not come.
    """

    def __init__(self, watch: Watch, control: Any, device: torch.device) -> None:
        """Speak for one rank; `control` is a gloo group of all ranks, None for the only group."""
        self.rank, self.world_size = watch.rank, watch.world_size
        self._watch, self._control, self._device = watch, control, device

    def gather(self, values: list[float]) -> list[list[float]]:
        """See `Ranks`."""
        mine = torch.tensor(values, dtype=torch.float64)
        found = [torch.empty_like(mine) for _ in range(self.world_size)]
        with self._watch.exchange():
            dist.all_gather(found, mine, group=self._control)
        return [row.tolist() for row in found]

    def gather_objects(self, value: Any) -> list[Any]:
        """See `Ranks`."""
        found: list[Any] = [None] * self.world_size
        with self._watch.exchange():
            dist.all_gather_object(found, value, group=self._control)
        return found

    def post(self, name: str, text: str) -> None:
        """See `Ranks`."""
        self._watch.post(name, text)

    def posted(self, name: str) -> list[str] | None:
        """See `Ranks`."""
        return self._watch.posted(name)

    def share(self, value: Any) -> Any:
        """See `Ranks`."""
        box = [value if self.first else None]
        with self._watch.exchange():
            dist.broadcast_object_list(box, src=0, group=self._control)
        return box[0]

    def transpose(self, shares: Tensor) -> Tensor:
        """See `Ranks`."""
        found = torch.empty_like(shares)
        with self._watch.exchange():
            dist.all_to_all_single(found, shares)
        return found

    def join(self, share: Tensor) -> Tensor:
        """See `Ranks`."""
        found = share.new_empty(self.world_size * len(share))
        with self._watch.exchange():
            dist.all_gather(list(found.view(self.world_size, -1)), share)
        return found

    @contextmanager
    def together(self) -> Iterator[None]:
        """See `Ranks`.

        A collective of NCCL returns when it is queued. A rank that waits for another one waits at
        the next number that it reads from the GPU, which must be in here to count as an exchange.
        """
        with self._watch.exchange():
            yield
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)


@contextmanager
def join_ranks(config: TrainConfig, device: str) -> Iterator[Ranks]:
    """Join the ranks that torchrun started, by its environment variables; alone without them.

    Raises:
        RecipeError: the recipe does not say that it may be many ranks, or its microbatches cannot
            be shared by as many as there are.
        TrainingError: another rank is gone or does not come, with its number.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    check_ranks(config, world_size)
    if world_size == 1:
        yield ALONE
        return
    place = torch.device("cpu")
    if device == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(place)
    # The watch must speak first: what a collective says when time is up names no rank.
    timeout = timedelta(seconds=config.rank_timeout_s + 4 * SILENT_SECONDS)
    rank = int(os.environ.get("RANK", "0"))
    try:
        store, rank, _ = next(rendezvous("env://", timeout=timeout))
        # torchrun's store outlives the ranks: those it restarts must not read what the dead wrote.
        store = PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            store=PrefixStore("group", store),
            rank=rank,
            world_size=world_size,
            timeout=timeout,
            # NCCL then connects here, where an error says what it is about, not in the first step.
            device_id=place if device == "cuda" else None,
        )
        control = dist.new_group(backend="gloo", timeout=timeout) if device == "cuda" else None
    except (RuntimeError, ValueError) as error:  # gloo, NCCL and the store; unset variables
        raise TrainingError(
            f"rank {rank} of {world_size} could not meet the others: {error}; start the ranks with"
            " torchrun, all of them, and see that they reach each other"
        ) from error
    leave = True
    try:
        watch = Watch(PrefixStore("watch", store), rank, world_size, config.rank_timeout_s)
        with watch:
            try:
                yield Group(watch, control, place)
            except Exception as error:
                # Leaving NCCL waits for collectives that the others will not come to any more, and
                # who would end this process then has stopped watching.
                leave = device != "cuda"
                watch.failed(f"rank {rank} of {world_size} failed: {error}")
                raise
    finally:
        if leave:
            dist.destroy_process_group()


def check_ranks(config: TrainConfig, world_size: int) -> None:
    """Check that a recipe can be run by so many ranks.

    Raises:
        RecipeError: says which key does not fit.
    """
    if world_size > 1 and config.parallel == "none":
        raise RecipeError(
            f"train.parallel = 'none', but {world_size} ranks were started (WORLD_SIZE); use"
            " 'ddp', or start one process"
        )
    if config.microbatches % world_size:
        raise RecipeError(
            f"train.microbatches = {config.microbatches} is not divisible by the {world_size} ranks"
            " that were started: each rank takes whole microbatches, so that the result does not"
            f" depend on their number; use a multiple of {world_size}"
        )
