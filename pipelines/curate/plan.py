"""The plan of a curate job: inputs by content, ranges, number of shards, and the stage's key.

Only the ranges depend on how the job is run; everything else follows from the inputs' bytes and
the recipe.
"""

import math
from typing import Any

import msgspec

from pipelines import files
from pipelines.curate.against import Earlier
from pipelines.curate.evaluation import EvaluationFile
from pipelines.curate.evaluation import identity as evaluation_identity
from pipelines.readers import Range, plan_ranges
from pipelines.recipe import CurateRecipe, definitions, hashed_recipe
from shards.hashing import stable_hash
from shards.manifest import InputEntry

EXPANSION = 4
"""Text bytes assumed per byte of a compressed or columnar input, when sizing shards."""


_LATER = ("keep", "sources")
"""Keys of `[dedup.near]` that only later stages read."""


class InputFile(msgspec.Struct, frozen=True):
    """An input file: its path, size and place in `input.paths`, content hash (hex), copy number."""

    path: str
    bytes: int
    order: int
    hash: str
    copy: int


class Plan(msgspec.Struct, frozen=True):
    """What a curate job will do. `inputs` are sorted by (hash, copy): a file's index is its name.

    `ranges[i]` belongs to input `range_inputs[i]`. `scan_key` names fragments (it leaves out
    filters, split and keep policy, which only later stages read), `stage_key` the whole result.
    """

    inputs: list[InputFile]
    ranges: list[Range]
    range_inputs: list[int]
    shards: int
    scan_key: str
    stage_key: str

    def owner(self, index: int) -> InputFile:
        """Return the input file of range `index`."""
        return self.inputs[self.range_inputs[index]]


def number_copies(
    hashed: list[tuple[str, int, str]], taken: dict[str, int] | None = None
) -> list[InputFile]:
    """Order (path, bytes, hash) by hash and number files with equal content 0, 1, ….

    `taken` says how many numbers of a hash earlier datasets have.

    Two files with the same bytes are interchangeable, so which of them is copy 0 cannot matter
    (to the `earliest` keep policy it does: there copy 0 is the first in `input.paths`).
    """
    inputs: list[InputFile] = []
    for order, (path, size, digest) in sorted(
        enumerate(hashed), key=lambda item: (item[1][2], item[0])
    ):
        again = inputs and inputs[-1].hash == digest
        copy = inputs[-1].copy + 1 if again else (taken or {}).get(digest, 0)
        inputs.append(InputFile(path, size, order, digest, copy))
    return inputs


def shard_count(ranges: list[Range], sizes: list[int], shard_bytes: int) -> int:
    """Return the number of shards: estimated text bytes over `shard_bytes`, at least 1.

    Args:
        ranges: one range of each file, for its format and compression (never its name: a renamed
            file must give the same shards).
        sizes: the files' bytes.
        shard_bytes: text bytes of a shard.
    """
    estimate = sum(
        size * (EXPANSION if span.compression != "none" or span.format == "parquet" else 1)
        for span, size in zip(ranges, sizes, strict=True)
    )
    return max(1, math.ceil(estimate / shard_bytes))


def make_plan(
    hashed: list[tuple[str, int, str]],
    recipe: CurateRecipe,
    range_bytes: int,
    evaluation: list[EvaluationFile] | None = None,
    earlier: Earlier | None = None,
) -> Plan:
    """Plan a job over hashed inputs (path, bytes, xxh3-128 hex) and hashed evaluation sets.

    Copies are numbered on from those of earlier datasets, as in one job over all.

    Raises:
        InputError: a file whose format is unknown or not what its name says.
    """
    earlier = earlier or Earlier()
    inputs = number_copies(hashed, earlier.copies())
    ranges: list[Range] = []
    owners: list[int] = []
    firsts: list[Range] = []
    sizes: list[int] = []
    for index, item in enumerate(inputs):
        planned = plan_ranges(
            item.path,
            recipe.input.format,
            item.bytes,
            files.open_file,
            range_bytes,
            fields=recipe.input.fields,
        )
        ranges += planned
        owners += [index] * len(planned)
        firsts += planned[:1]  # an empty file has none
        sizes += [item.bytes] * len(planned[:1])
    shards = shard_count(firsts, sizes, recipe.output.shard_bytes)
    plain = hashed_recipe(recipe)
    order = [item.order for item in inputs] if recipe.dedup.near.keep == "earliest" else []
    identity: dict[str, Any] = {
        "inputs": [msgspec.to_builtins(entry) for entry in input_entries(inputs)],
        "definitions": definitions(
            recipe.signals, web=any(span.format == "warc" for span in ranges)
        ),
        "evaluation": evaluation_identity(evaluation or []),
        "earlier": earlier.datasets,
    }
    contamination = plain["dedup"]["contamination"]
    scanned = {
        "input": plain["input"],
        "signals": plain["signals"],
        "near": {k: v for k, v in plain["dedup"]["near"].items() if k not in _LATER},
        "contamination": {k: v for k, v in contamination.items() if k != "action"},
        "shards": shards,
    }
    return Plan(
        inputs=inputs,
        ranges=ranges,
        range_inputs=owners,
        shards=shards,
        scan_key=stable_hash({**identity, **scanned}),
        stage_key=stable_hash({**identity, "recipe": plain, "shards": shards, "order": order}),
    )


def input_entries(inputs: list[InputFile]) -> list[InputEntry]:
    """Return the inputs as the manifest's hashed part lists them: by content, without names."""
    return [InputEntry(hash=item.hash, bytes=item.bytes, copy=item.copy) for item in inputs]
