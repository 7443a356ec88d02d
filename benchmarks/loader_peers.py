"""Other loaders, those that are installed, over the same stream: shuffled rows of T + 1 tokens.

Each is set up as its documentation does for data on local disk, without worker processes, and
gives batches of B rows with inputs and targets in int64. Rows do not overlap, so a peer copies no
token twice.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

Step = Callable[[], object]
Rows = npt.NDArray[np.uint16]


def contestants(
    stream: npt.NDArray[np.uint16], folder: Path, B: int, T: int
) -> tuple[dict[str, Step], list[str]]:
    """Return a step of each peer by name, and the names of those that are not installed."""
    rows = stream[: len(stream) // (T + 1) * (T + 1)].reshape(-1, T + 1)
    makers = {
        "OLMo-core style memmap": _olmo,
        "Hugging Face datasets (map)": _datasets,
        "litdata": _litdata,
        "mosaicml-streaming (MDS)": _mds,
        "grain": _grain,
        "torchdata StatefulDataLoader": _torchdata,
    }
    steps, missing = {}, []
    for number, (name, make) in enumerate(makers.items()):
        place = folder / f"peer-{number}"
        place.mkdir()
        try:
            batches = make(rows, place, B)
        except ImportError as error:
            missing.append(f"{name}: {error}")
            continue
        steps[name] = _step(batches)
    return steps, missing


def _step(batches: Iterator[Any]) -> Step:
    return lambda: next(batches)


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def _split(rows: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Collate rows of uint16 to inputs and targets."""
    tokens = torch.from_numpy(np.stack(rows).astype(np.int64))
    return tokens[:, :-1], tokens[:, 1:]


class _OlmoDataset(Dataset[dict[str, Any]]):
    """What OLMo-core's memmap dataset does for a row: open, seek, read bytes, convert."""

    def __init__(self, path: Path, length: int) -> None:
        self.path, self.length = path, length

    def __len__(self) -> int:
        return self.path.stat().st_size // 2 // self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        with self.path.open("rb") as file:
            file.seek(index * self.length * 2)
            raw = np.frombuffer(file.read(self.length * 2), np.uint16)
        return {"input_ids": torch.tensor(raw.astype(np.int64)), "index": index}


def _olmo(rows: Rows, folder: Path, B: int) -> Iterator[Any]:
    rows.tofile(folder / "rows.bin")
    dataset = _OlmoDataset(folder / "rows.bin", rows.shape[1])
    return _endless(DataLoader(dataset, batch_size=B, shuffle=True, drop_last=True))


def _datasets(rows: Rows, folder: Path, B: int) -> Iterator[Any]:
    import datasets

    datasets.disable_progress_bars()
    made = datasets.Dataset.from_dict({"tokens": list(rows)})
    made.save_to_disk(str(folder))
    loaded = datasets.load_from_disk(str(folder)).with_format("numpy")
    return _endless(
        DataLoader(
            loaded,
            batch_size=B,
            shuffle=True,
            drop_last=True,
            collate_fn=lambda found: _split([row["tokens"] for row in found]),
        )
    )


def _litdata(rows: Rows, folder: Path, B: int) -> Iterator[Any]:
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_bytes="64MB", item_loader=TokensLoader(rows.shape[1]))
    for index, row in enumerate(rows):
        writer[index] = torch.from_numpy(row.astype(np.int32))
    writer.done()
    writer.merge()
    dataset = StreamingDataset(
        str(folder), item_loader=TokensLoader(rows.shape[1]), shuffle=True, drop_last=True
    )

    def collate(found: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.stack(found).long()
        return tokens[:, :-1], tokens[:, 1:]

    return _endless(StreamingDataLoader(dataset, batch_size=B, num_workers=0, collate_fn=collate))


def _mds(rows: Rows, folder: Path, B: int) -> Iterator[Any]:
    from streaming import MDSWriter, StreamingDataset

    with MDSWriter(out=str(folder), columns={"tokens": "ndarray:uint16"}) as writer:
        for row in rows:
            writer.write({"tokens": row})
    dataset = StreamingDataset(local=str(folder), shuffle=True, batch_size=B)
    return _endless(
        DataLoader(
            dataset,
            batch_size=B,
            drop_last=True,
            collate_fn=lambda found: _split([row["tokens"] for row in found]),
        )
    )


def _grain(rows: Rows, folder: Path, B: int) -> Iterator[Any]:
    import grain.python as grain

    rows.tofile(folder / "rows.bin")
    mapped = np.memmap(folder / "rows.bin", np.uint16, "r").reshape(rows.shape)

    class Source:
        def __len__(self) -> int:
            return len(mapped)

        def __getitem__(self, index: int) -> Any:
            return mapped[index].astype(np.int64)

    found = grain.MapDataset.source(Source()).shuffle(seed=0).repeat().batch(B)
    batches = iter(found.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))

    def tensors() -> Iterator[Any]:
        for batch in batches:
            tokens = torch.from_numpy(batch)
            yield tokens[:, :-1], tokens[:, 1:]

    return tensors()


def _torchdata(rows: Rows, folder: Path, B: int) -> Iterator[Any]:
    from torchdata.stateful_dataloader import StatefulDataLoader

    rows.tofile(folder / "rows.bin")
    dataset = _OlmoDataset(folder / "rows.bin", rows.shape[1])
    return _endless(StatefulDataLoader(dataset, batch_size=B, shuffle=True, drop_last=True))
