"""What a run reads, written before its first step, so that it can be traced while it goes on."""

from pathlib import Path
from typing import Any

import msgspec

from shards.batches import order_definitions
from shards.dataset import TokenView
from shards.view_file import VIEW, write_view
from trainer.config import DEFINITIONS, TrainConfig
from trainer.records import write_record
from trainer.sizes import MUON_VALUES, matrices_per_layer

BEGUN = "begun.json"


class Begun(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`begun.json`: of `run.json` what is known from the start; fields as there.

    Where `draw` is not "all", `documents.npz` beside it has the documents that were drawn.
    """

    dataset_id: str
    select: str
    draw: str
    selection_hash: str
    seed: int
    steps: int
    config: TrainConfig
    definitions: dict[str, str]
    facts: dict[str, Any]


def definitions_of(config: TrainConfig) -> dict[str, str]:
    """Return names and versions of all that decides a result, the sample order included.

    Only where its matrices are more than go through it at a time is Muon another one: with several
    threads, how many are multiplied together decides a last bit. Smaller finished runs stay so.
    """
    model = config.model
    in_parts = model.layers * matrices_per_layer(model) > MUON_VALUES
    muon = {"optimizer": "3"} if config.optimizer == "muon" and in_parts else {}
    return DEFINITIONS | muon | order_definitions(config)


def places_of(view: TokenView, world_size: int) -> dict[str, Any]:
    """Return the facts that a trace needs: where the data is, and how many ranks share a batch."""
    return {"data": view.dataset.location, "world_size": world_size}


def write_begun(folder: Path, view: TokenView, config: TrainConfig, world_size: int) -> None:
    """Write `begun.json`, whole or not at all, and before it which documents were drawn."""
    if view.draw == "all":
        (folder / VIEW).unlink(missing_ok=True)  # of another run in this folder
    else:
        write_view(folder / VIEW, view)
    record = Begun(
        dataset_id=view.dataset.dataset_id,
        select=view.expression,
        draw=view.draw,
        selection_hash=view.selection_hash,
        seed=config.seed,
        steps=config.total_steps,
        config=config,
        definitions=definitions_of(config),
        facts=places_of(view, world_size),
    )
    write_record(folder / BEGUN, record)
