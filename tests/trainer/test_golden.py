"""Two short runs whose losses are written down: a change of model, optimiser, order or schedule
that was not meant shows here. The tolerance leaves room for another CPU's order of sums, no more.
After a change that is meant, raise its version in `trainer.config.DEFINITIONS` and run

    python -m tests.trainer.test_golden
"""

import tempfile
from pathlib import Path

import msgspec
import pytest

from shards.dataset import TokenDataset
from tests.trainer.conftest import TINY, counting_table, write_dataset
from trainer.config import DEFINITIONS, ModelConfig
from trainer.data import read_documents
from trainer.loop import train
from trainer.progress import Reporter
from trainer.records import read_metrics

MUON = {"learning_rate": 0.02, "embedding_learning_rate": 0.05}
ADAMW = {
    "model": ModelConfig(dim=24, layers=2, heads=6, kv_heads=2, activation="swiglu", tied=True),
    "optimizer": "adamw",
    "schedule": "cosine",
    "learning_rate": 0.01,
    "microbatches": 4,
}
EVERY = 8
STEPS = 40

GOLDEN = {
    "muon": [2.94444, 2.21655, 2.80062, 2.43579, 2.64877, 2.55093],
    "adamw": [2.96206, 2.74096, 2.86068, 2.56156, 2.76263, 2.87534],
}
"""Loss before steps 1, 9, 17… and bits per byte at the end."""

VERSIONS = {
    "model": "4",
    "optimizer": "2",
    "loop": "3",
    "evaluation": "2",
    "baselines": "1",
}


def losses(dataset: TokenDataset, folder: Path, changes: dict) -> list[float]:
    config = msgspec.structs.replace(TINY, steps=STEPS, eval_every=0, checkpoint_every=0, **changes)
    view = dataset.select("split == 'train'")
    valid = read_documents(dataset, "split == 'valid'", 400)
    record = train(view, valid, config, folder, Reporter(quiet=True))
    return [*(row.loss for row in read_metrics(folder, STEPS)[::EVERY]), record.bpb]


@pytest.mark.parametrize(("name", "changes"), [("muon", MUON), ("adamw", ADAMW)])
def test_losses_are_those_written_down(dataset, tmp_path, name, changes):
    assert losses(dataset, tmp_path, changes) == pytest.approx(GOLDEN[name], abs=2e-4)


def test_the_losses_were_written_down_with_these_definitions():
    assert DEFINITIONS == VERSIONS


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        tables = (counting_table(seed=0), counting_table(seed=1))
        made = TokenDataset.open(write_dataset(Path(place, "tokens"), *tables))
        for key, value in (("muon", MUON), ("adamw", ADAMW)):
            print(key, [round(x, 5) for x in losses(made, Path(place, key), value)])
        print(DEFINITIONS)
