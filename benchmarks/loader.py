"""Tokens a second of CPU time of the loader, its cost of resuming, and the flipped bits it finds.

    python -m benchmarks.loader [--quick] [--peers] [--millions N]

Every loader gives shuffled batches of B = 16 samples of T = 1024 tokens, as inputs and targets in
int64 torch tensors, from one stream of uint16 tokens on local disk that is in the page cache, in
one process without workers. Speeds are medians of five turns, one loader after the other in each.
The last line is one JSON object:

    mtok_per_cpu_s      million tokens a CPU second, after the first epoch, which hashes the blocks
    ratio_memmap        that over a torch DataLoader on a numpy memmap
    ratio_widen_limit   that over a loop that widens the stream to int64 in file order, and no more
    resume_ms           CPU ms from a saved state to the next batch, at steps 10², 10⁴, 10⁶
    first_batch_ms      wall ms from a closed dataset to the first batch
    private_mb_grown    MB of private memory that opening and reading the dataset once take
    flips_found, flips  single-bit flips at random places of shard files, and those that raised
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks import loader_peers
from shards.atomic import write_atomic
from shards.dataset import TokenDataset, TokenView
from shards.errors import AssayError
from shards.loader import Loader
from shards.manifest import MANIFEST, Content, Counts, encode_manifest, new_manifest
from shards.tokens import TokenMetadata, encode_token_shard, open_token_shard, shard_entry
from shards.torch import TorchLoader
from shards.verify import verify

B, T, V, EOS = 16, 1024, 32768, 2
TURNS = 5
STEPS = (10**2, 10**4, 10**6)
FAR = 10**7
Step = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 50 s on 2 busy cores")
    parser.add_argument("--peers", action="store_true", help="compare with what is installed")
    parser.add_argument("--millions", type=int, help="tokens (default 200, with --quick 48)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    millions = options.millions or (48 if options.quick else 200)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stream = build(folder / "tokens", millions * 10**6, shard_tokens=50 * 10**6)
        stream.tofile(folder / "stream.bin")
        view = TokenDataset.open(folder / "tokens").select()
        first_epoch = speed_of_first_epoch(view)
        seconds = 0.2 if options.quick else 1.0
        speeds = measure(contestants(view, folder / "stream.bin"), seconds)
        ours = speeds["assay"]
        result = {
            "tokens_m": round(view.tokens / 1e6, 1),
            "mtok_per_cpu_s": round(ours, 1),
            "ratio_memmap": round(ours / speeds["torch memmap DataLoader"], 2),
            "ratio_widen_limit": round(ours / speeds["widening loop"], 3),
            "resume_ms": resume(view),
            f"resume_ms_at_step_{FAR}": resume(view, (FAR,))[0],
            "open_ms": open_and_select(folder / "tokens"),
            "first_batch_ms": first_batch(folder / "tokens"),
            "private_mb_grown": memory_of_an_epoch(folder / "tokens"),
            "first_epoch_mtok_per_cpu_s": round(first_epoch, 1),
            "mtok": {name: round(speed, 1) for name, speed in speeds.items()},
        }
        if options.peers:
            steps, missing = loader_peers.contestants(stream, folder, B, T)
            found = measure(steps, seconds)
            result["peers"] = {name: round(speed, 1) for name, speed in found.items()}
            result["peers_ratio"] = {name: round(ours / speed, 1) for name, speed in found.items()}
            result["peers_not_installed"] = missing
        result |= flips(folder / "flips", *((1000, 8.0) if options.quick else (10_000, 600.0)))
    print(json.dumps(result))


def build(folder: Path, tokens: int, shard_tokens: int) -> npt.NDArray[np.uint16]:
    """Write a tokens dataset of random documents; return its stream."""
    rng = np.random.default_rng(0)
    shards = -(-tokens // shard_tokens)
    entries, parts, total = [], [], 0
    for index in range(shards):
        lengths = rng.lognormal(6, 1, max(tokens // shards // 666, 2)).astype(np.int64) + 1
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        values = rng.integers(3, V, offsets[-1], np.uint16)
        values[offsets[1:] - 1] = EOS
        table = pa.table(
            {
                "doc_id": pa.array([rng.bytes(16) for _ in lengths], pa.binary(16)),
                "split": pa.array(["train"] * len(lengths)),
                "bytes": lengths * 4,
                "tokens": pa.LargeListArray.from_arrays(offsets, values),
            }
        )
        data = encode_token_shard(table, TokenMetadata("0" * 64, V, EOS))
        path = f"tokens/{index:05}-of-{shards:05}.arrow"
        write_atomic(folder / path, data)
        entries.append(
            shard_entry(path, data, documents=len(lengths), tokens=len(values), first_token=total)
        )
        parts.append(values)
        total += len(values)
    content = Content(
        kind="tokens",
        shards={"tokens": entries},
        total=Counts(tokens=total),
        sources={},
        tokenizer={"sha256": "0" * 64, "vocab_size": V, "eos_id": EOS},
    )
    write_atomic(folder / MANIFEST, encode_manifest(new_manifest(content, stage_key="", run={})))
    return np.concatenate(parts)


def make_loader(view: TokenView) -> Loader:
    return Loader(view, sequence_length=T, batch_size=B, seed=0)


def speed_of_first_epoch(view: TokenView) -> float:
    """Read the view once, which hashes each block."""
    loader, out = make_loader(view), np.empty((B, T + 1), np.int64)
    start = time.process_time()
    for _ in range(-(-loader.samples_per_epoch // B)):
        loader.next(out)
    return view.tokens / (time.process_time() - start) / 1e6


def contestants(view: TokenView, stream: Path) -> dict[str, Step]:
    """Return what takes a step of B x T tokens, by name."""
    loader, out = make_loader(view), np.empty((B, T + 1), np.int64)

    def assay() -> object:
        batch = loader.next(out)
        return torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)

    torch_loader = TorchLoader(make_loader(view), depth=0)
    samples = DataLoader(MemmapDataset(stream), batch_size=B, shuffle=True, drop_last=True)
    batches = endless(samples)
    return {
        "assay": assay,
        "assay TorchLoader": lambda: next(torch_loader),
        "torch memmap DataLoader": lambda: next(batches),
        "nanoGPT get_batch": nanogpt(stream),
        "widening loop": widening(view, out),
    }


class MemmapDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The map-style dataset that most people write over a file of uint16 tokens."""

    def __init__(self, path: Path) -> None:
        self.data = np.memmap(path, dtype=np.uint16, mode="r")

    def __len__(self) -> int:
        return (len(self.data) - 1) // T

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        chunk = torch.from_numpy(self.data[index * T : index * T + T + 1].astype(np.int64))
        return chunk[:-1], chunk[1:]


def endless(loader: "DataLoader[Any]") -> Iterator[Any]:
    while True:
        yield from loader


def nanogpt(path: Path) -> Step:
    """Draw random starts, as nanoGPT's `get_batch` does: not an epoch, but the usual loop."""

    def step() -> object:
        data = np.memmap(path, dtype=np.uint16, mode="r")  # anew each time, against a leak
        starts = torch.randint(len(data) - T, (B,))
        x = torch.stack([torch.from_numpy(data[i : i + T].astype(np.int64)) for i in starts])
        y = torch.stack(
            [torch.from_numpy(data[i + 1 : i + 1 + T].astype(np.int64)) for i in starts]
        )
        return x, y

    return step


def widening(view: TokenView, out: npt.NDArray[np.int64]) -> Step:
    """Widen the mapped stream of the first shard in file order: what no loader can be below."""
    shard = open_token_shard(view.dataset.folder / view.dataset.entries[0].path)
    rows = shard.tokens[: len(shard.tokens) // (B * T) * B * T].reshape(-1, B, T)
    place = 0

    def step() -> None:
        nonlocal place
        np.copyto(out[:, :T], rows[place])
        place = (place + 1) % len(rows)

    return step


def measure(steps: dict[str, Step], seconds: float) -> dict[str, float]:
    """Return million tokens per CPU second, the median of `TURNS` turns of `seconds` each."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(TURNS + 1):
        for name, step in steps.items():
            count, start, wall = 0, time.process_time(), time.perf_counter()
            while count == 0 or time.perf_counter() - wall < seconds:
                for _ in range(20):
                    step()
                count += 20
            if turn:  # the first turn warms caches
                found[name].append(count * B * T / (time.process_time() - start) / 1e6)
    return {name: statistics.median(speeds) for name, speeds in found.items()}


def resume(view: TokenView, at: tuple[int, ...] = STEPS) -> list[float]:
    """Return CPU ms from a state to the batch after it, medians of 21, at each of some steps."""
    found = []
    for steps in at:
        state = {**make_loader(view).state(), "g": steps * B}

        def work(state: dict[str, Any] = state) -> None:
            loader = make_loader(view)
            loader.load_state(state)
            loader.next()

        found.append(cpu_ms(work))
    return found


def open_and_select(folder: Path) -> float:
    return cpu_ms(lambda: TokenDataset.open(folder).select())


def first_batch(folder: Path) -> float:
    """Return wall ms from a closed dataset to its first batch, the median of 21."""
    times = []
    for _ in range(21):
        start = time.perf_counter()
        make_loader(TokenDataset.open(folder).select()).next()
        times.append(time.perf_counter() - start)
    return round(statistics.median(times) * 1e3, 1)


def memory_of_an_epoch(folder: Path) -> float:
    """Return the MB of private memory that opening and reading once take, in a new process."""
    code = (
        "from benchmarks import loader; from pathlib import Path; before = loader.private_mb();"
        f" view = loader.TokenDataset.open({str(folder)!r}).select();"
        " loader.speed_of_first_epoch(view); print(loader.private_mb() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return round(float(done.stdout), 1)


def private_mb() -> float:
    """Return this process's private memory (anonymous pages; Linux) in MB."""
    (line,) = [s for s in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in s]
    return int(line.split()[1]) * 1024 / 1e6


def cpu_ms(work: Step) -> float:
    times = []
    for _ in range(21):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return round(statistics.median(times) * 1e3, 3)


def flips(folder: Path, most: int, seconds: float) -> dict[str, int]:
    """Flip single bits at random places of the shards of a small dataset, until time is over.

    Every flip must make reading the dataset's tokens raise; every tenth must be found by `verify`
    as well, with its block. Between flips the bit is put back.
    """
    build(folder, 700_000, shard_tokens=400_000)
    paths = sorted((folder / "tokens").iterdir())
    sizes = [path.stat().st_size for path in paths]
    rng = np.random.default_rng(1)
    tried = found = 0
    started = time.perf_counter()
    while tried < most and time.perf_counter() - started < seconds:
        place = int(rng.integers(sum(sizes)))
        shard = int(place >= sizes[0])
        position, mask = place - shard * sizes[0], 1 << int(rng.integers(8))
        with paths[shard].open("r+b", buffering=0) as file:
            flip(file, position, mask)
            raised = reading_raises(folder)
            if tried % 10 == 0:
                blocks = [problem.block for problem in verify(folder)]
                raised = raised and blocks == [position // (1 << 20)]
            flip(file, position, mask)
        tried, found = tried + 1, found + raised
    if reading_raises(folder):
        raise SystemExit("the dataset is not what it was: the flips were not undone")
    return {"flips_found": found, "flips": tried}


def flip(file: Any, position: int, mask: int) -> None:
    file.seek(position)
    (byte,) = file.read(1)
    file.seek(position)
    file.write(bytes([byte ^ mask]))


def reading_raises(folder: Path) -> bool:
    """Read all tokens of a dataset as the loader does; tell whether it found something wrong."""
    try:
        view = TokenDataset.open(folder).select()
        loader = Loader(view, sequence_length=1 << 14, batch_size=16, seed=0)
        for _ in range(-(-loader.samples_per_epoch // 16)):
            loader.next()
    except AssayError:
        return True
    return False


if __name__ == "__main__":
    main()
