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

HAS_NO_EFFECT = (
    "checkpoint_every",
    "checkpoint_async",
    "keep_checkpoints",
    "parallel",
    "rank_timeout_s",
    "replica_check_every",
    "prometheus_port",
    "tensorboard",
    "recompute",
)
"""Settings that change what can be resumed and how, but not the result. With `spike = "rollback"`
`checkpoint_every` decides what a spike goes back to, and counts."""


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


def deciding(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that decide a result, as plain data."""
    settings: dict[str, Any] = msgspec.to_builtins(config)
    for name in HAS_NO_EFFECT:
        if name != "checkpoint_every" or config.spike == "skip":
            del settings[name]
    if config.spike == "skip":  # as before there was a choice, so that finished runs stay finished
        del settings["spike"]
    return settings


def other_settings(there: TrainConfig, here: TrainConfig) -> list[tuple[str, Any, Any]]:
    """Return name and both values of the settings that make two runs two."""
    old, new = msgspec.to_builtins(there), msgspec.to_builtins(here)
    decide = deciding(there).keys() | deciding(here).keys()
    return [(key, old[key], new[key]) for key in new if key in decide and old[key] != new[key]]


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
