"""How long a step waits for a checkpoint: ours, with and without its thread, and torch's own.

    python -m benchmarks.checkpoint [--preset 15m] [--rounds 5]

One process, the state of a model with its optimisers on the CPU, medians in seconds of wall-clock
time, the four ways by turns. `blocks_s` is what a step waits for, `total_s` the time until the
files are there. A copy's first round also allocates; it is not counted. Prints one JSON object.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `assay train` does, before torch

import torch

from trainer.checkpoint import load_checkpoint
from trainer.config import TrainConfig
from trainer.history import Times
from trainer.model import Transformer
from trainer.optim import build_optimizers
from trainer.presets import preset_named
from trainer.ranks import ALONE
from trainer.saving import Saver

Way = Callable[[Path], Callable[[], object]]
"""Begins to save into a folder; what it returns waits for the end."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="15m")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    state = state_of(options.preset)
    started = time.perf_counter()
    ways = {"ours": ours(state), "ours_in_line": ours(state, aside=False)} | torch_ways(state)
    found: dict[str, Any] = {"dcp_import_s": round(time.perf_counter() - started, 2)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as place:
        for number in range(options.rounds + 1):
            for name, way in ways.items():
                folder = Path(place, name)
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                begun = time.perf_counter()
                wait = way(folder)
                blocked = time.perf_counter() - begun
                wait()
                if number:
                    times[name].append((blocked, time.perf_counter() - begun))
        found |= flipped(Path(place))
    for name, pairs in times.items():
        blocks, total = (statistics.median(column) for column in zip(*pairs, strict=True))
        found[name] = {"blocks_s": round(blocks, 4), "total_s": round(total, 4)}
    print(json.dumps(found))


def state_of(preset: str) -> dict[str, Any]:
    """Return the state of a model after one step of its optimisers."""
    shape = preset_named(preset, "--preset")
    model = Transformer(shape.model, shape.vocabulary, shape.sequence_length)
    model.initialise(1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizers = build_optimizers(model, TrainConfig(model=shape.model))
    for optimizer in optimizers:
        optimizer.step()
    return {
        "step": 1,
        "model": dict(model.state_dict()),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }


def ours(state: dict[str, Any], *, aside: bool = True) -> Way:
    """Return our way, with hash, fsync and commit."""
    config = TrainConfig(checkpoint_async=aside)
    saver = Saver(Path(), "key", config, ALONE, cut=False)  # one: it keeps the memory of its copy

    def way(folder: Path) -> Callable[[], object]:
        saver._folder = folder
        saver.save(1, state, Times())
        return saver.finish

    return way


def torch_ways(state: dict[str, Any]) -> dict[str, Way]:
    """Return torch's ways, which write neither hash nor commit."""
    warnings.simplefilter("ignore")
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp

    store = dist.HashStore()  # type: ignore[no-untyped-call]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)

    def sync(folder: Path) -> Callable[[], object]:
        dcp.save(state, checkpoint_id=folder)
        return lambda: None

    def aside(folder: Path) -> Callable[[], object]:
        future: Any = dcp.async_save(state, checkpoint_id=folder)
        wait: Callable[[], object] = future.result
        return wait

    return {"dcp": sync, "dcp_async": aside}


def flipped(place: Path) -> dict[str, bool]:
    """Say whether one flipped bit in the middle of each file of tensors is found."""
    import torch.distributed.checkpoint as dcp

    answers = {}
    for name in ("ours", "dcp"):
        (file,) = [*Path(place, name).glob("*.safetensors"), *Path(place, name).glob("*.distcp")]
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        try:
            if name == "ours":
                load_checkpoint(file.parent, "key")
            else:
                into = {"model": {k: v.clone() for k, v in state_of_file(file.parent).items()}}
                dcp.load(into, checkpoint_id=file.parent)
            answers[f"{name}_finds_a_flip"] = False
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {str(error)[:100]}", file=sys.stderr)
            answers[f"{name}_finds_a_flip"] = True
    return answers


def state_of_file(folder: Path) -> dict[str, torch.Tensor]:
    """Return empty tensors for the model that a folder of torch's holds."""
    from torch.distributed.checkpoint import FileSystemReader

    entries: Any = FileSystemReader(folder).read_metadata().state_dict_metadata
    tensors = {k: v for k, v in entries.items() if k.startswith("model.")}
    return {k.removeprefix("model."): torch.zeros(v.size) for k, v in tensors.items()}


if __name__ == "__main__":
    main()
