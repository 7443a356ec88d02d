"""What a rank needs of memory, by arithmetic alone (light: imports no torch)."""

from typing import NamedTuple

from trainer.config import TrainConfig
from trainer.sizes import MUON_VALUES, loss_bytes, matrices_per_layer, parameter_count

FP32, BF16 = 4, 2
"""Bytes of a value."""


class Footprint(NamedTuple):
    """Bytes of one rank at the peak of a step; `copy` is in main memory, the rest on the device.

    weights, gradients, moments: what this rank holds of them.
    activations: what the backward pass of one microbatch reads.
    logits: a chunk of the output layer (on a CPU it is a few MiB).
    working: what the ranks exchange, blocks that are whole while they work, Muon's updates.
    copy: the state that a checkpoint is written from while the run goes on; with "ddp" only the
        first rank writes.
    """

    weights: int
    gradients: int
    moments: int
    activations: int
    logits: int
    working: int
    copy: int

    @property
    def device(self) -> int:
        """Bytes on the device."""
        return sum(self) - self.copy


def footprint(
    config: TrainConfig, vocabulary: int, world_size: int = 1, *, gpu: bool = False
) -> Footprint:
    """Estimate a rank's memory at the peak of a step.

    Every rank of "ddp" has all weights, one of "fsdp2" its share (gains, which all have, are not
    worth a term). Moments: two a parameter for AdamW, one for Muon's matrices. Activations: about
    10 D + 3 F values a layer and position, in bf16 on a GPU; with `recompute` those of one layer,
    and the input of each, D values in fp32 as the residual stream is (Chen et al. 2016). "ddp"
    copies all gradients end to end to exchange them and keeps a share of the sums
    (`trainer/reduce.py`); "fsdp2" keeps a share of the sums and has the two largest of its modules
    whole at a time. Muon puts updates together and orthogonalises them, twice `MUON_VALUES` or one
    parameter at a time. An estimate: allocators add a tenth or so.
    """
    model = config.model
    parameters = parameter_count(model, vocabulary)
    hidden = model.layers * matrices_per_layer(model)
    cut = config.parallel == "fsdp2" and world_size > 1
    share = world_size if cut else 1
    muon = config.optimizer == "muon"
    moments = 2 * parameters - (hidden if muon else 0)
    tables = vocabulary * model.dim * (1 if model.tied else 2)
    gate = 2 if model.activation == "swiglu" else 1
    largest = gate * model.dim * model.hidden
    working = 2 * min(hidden, max(MUON_VALUES, largest)) if muon else 0
    if cut:
        working = max(working, 2 * (tables + matrices_per_layer(model))) + parameters // share
    elif world_size > 1:
        working = max(working, parameters + parameters // world_size)
    positions = config.batch_tokens // config.microbatches
    layer = positions * (10 * model.dim + 3 * gate * model.hidden)
    inputs = positions * model.layers * model.dim if config.recompute else 0
    copied = (parameters + moments) // share if config.checkpoint_async else 0
    narrow = gpu and config.precision != "fp32"
    return Footprint(
        weights=FP32 * parameters // share,
        gradients=FP32 * parameters // share,
        moments=FP32 * moments // share,
        activations=(BF16 if narrow else FP32) * layer * (1 if config.recompute else model.layers)
        + FP32 * inputs,
        logits=loss_bytes(positions, vocabulary) if gpu else 0,
        working=FP32 * working,
        copy=FP32 * copied,
    )


def footprint_line(
    config: TrainConfig, vocabulary: int, world_size: int = 1, *, gpu: bool = False
) -> str:
    """Describe `footprint` on one line."""
    found = footprint(config, vocabulary, world_size, gpu=gpu)
    ways = f"{world_size} ranks, {config.parallel}" if world_size > 1 else "1 rank"
    parts = ", ".join(f"{name} {size(getattr(found, name))}" for name in found._fields[:-1])
    return (
        f"memory per rank ({ways}): about {size(found.device)} ({parts}), and {size(found.copy)} of"
        " main memory for the copy that a checkpoint is written from"
    )


def size(count: float) -> str:
    """Write bytes with three digits and a binary unit: 1572864 → '1.5 MiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"
