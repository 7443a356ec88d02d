"""The compression ladder: how many bits a byte of text costs under better and better models.

Every rung has two sides: `raw` is all documents that were read, `curated` those that were kept.
Data that costs fewer bits at the same rung is more redundant; what each rung gains over the one
before says where the redundancy lies (inside documents, between documents, in word frequencies,
in context). `stage_prices` splits the way from raw to curated into the stages between.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zstandard

from pipelines.curate.bits import STAGES
from pipelines.report.study import Study
from shards.dataset import TokenDataset
from shards.manifest import Manifest
from shards.select import columns, select

STREAM_BYTES = 8 << 20
"""Text that is compressed as one stream, per side: about 4 s at level 19."""

STREAM_LEVEL = 19
WINDOW_LOG = 27
"""zstd's long mode with its default window of 128 MiB (`zstd --long=27`)."""

SAMPLE_TOKENS = 1 << 26
"""Tokens that are counted at most; a shard that is begun is counted to its end."""

_CHUNK = 1 << 22

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rung:
    """One step of the ladder, in bits per byte of UTF-8; None where it was not measured."""

    name: str
    definition: str
    raw: float | None
    curated: float | None


@dataclass(frozen=True)
class StagePrice:
    """What is left of a corpus after a stage, and its price in bits per byte (`curate/bits.py`).

    `document`: each document alone; `window`: each shard in one long window; `marginal`: each
    document given a sample of the base. None where there is no text, or no reference.
    """

    stage: str
    documents: int
    bytes: int
    document: float | None
    window: float | None
    marginal: float | None


@dataclass(frozen=True)
class TokenCounts:
    """Of one side of a tokens dataset: how often each id occurs (int64[V]), and bytes of text."""

    counts: Counts
    bytes: int

    @property
    def tokens(self) -> int:
        """Tokens in all, EOS included."""
        return int(self.counts.sum())

    @property
    def fixed_bpb(self) -> float:
        """Bits per byte of a code with log2(V) bits for every token."""
        return self.tokens * float(np.log2(len(self.counts))) / self.bytes

    @property
    def entropy_bpb(self) -> float:
        """Bits per byte of the best code without context: N · H / bytes (Shannon 1948)."""
        present = self.counts[self.counts > 0].astype(np.float64)
        nats = float((present * np.log(present.sum() / present)).sum())
        return nats / float(np.log(2)) / self.bytes


def rungs(
    root: Path, curated: Manifest | None, tokens: Manifest | None, study: Study | None
) -> list[Rung]:
    """Return the rungs that can be measured: general compressors first, then models of tokens."""
    ladder = [Rung("raw text", "8 bits a byte, by definition", 8.0, 8.0)]
    if curated:
        ladder.append(_documents_rung(curated))
        ladder += _stage_rungs(stage_prices(curated))
        ladder.append(stream_rung(root / "curated", curated))
    if tokens:
        ladder += token_rungs(root / "tokens")
    if study:
        ladder.append(model_rung(study))
    return ladder


def _documents_rung(curated: Manifest) -> Rung:
    """Bits of every document compressed alone, from the sums in the manifest."""
    stats = curated.content.stats
    bits, size = stats["zstd_bits"], stats["bytes"]
    level = curated.content.recipe.get("signals", {}).get("zstd_level", 3)
    return Rung(
        f"zstd-{level}, each document",
        "every document compressed alone: redundancy inside documents",
        _ratio(bits["kept"] + bits["dropped"], size["kept"] + size["dropped"]),
        _ratio(bits["kept"], size["kept"]),
    )


def stage_prices(curated: Manifest) -> list[StagePrice]:
    """Return the prices before all stages and after each that took something away, in order."""
    found: dict[str, dict[str, int]] = curated.content.stats.get("stages", {})
    prices: list[StagePrice] = []
    for stage in STAGES:
        bits = found.get(stage)
        if bits is None or (prices and prices[-1].documents == bits["documents"]):
            continue
        prices.append(
            StagePrice(
                stage=stage,
                documents=bits["documents"],
                bytes=bits["bytes"],
                document=_ratio(bits["document_bits"], bits["bytes"]),
                window=_ratio(bits["window_bits"], bits["bytes"]),
                marginal=_ratio(bits["marginal_bits"], bits["bytes"])
                if "marginal_bits" in bits
                else None,
            )
        )
    return prices


def _stage_rungs(prices: list[StagePrice]) -> list[Rung]:
    """Return the rungs of all text, from before the first stage to after the last."""
    if not prices:
        return []
    raw, curated = prices[0], prices[-1]
    found = [
        Rung(
            "zstd-1 long, each shard",
            "all documents of a shard in one window of 128 MiB: what they share is paid once",
            raw.window,
            curated.window,
        )
    ]
    if raw.marginal is not None:
        found.append(
            Rung(
                "marginal, given 2 MiB",
                "every document given a sample of the base: what it adds to such a corpus",
                raw.marginal,
                curated.marginal,
            )
        )
    return found


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def stream_rung(folder: Path, curated: Manifest) -> Rung:
    """Compress the first `STREAM_BYTES` of each side as one stream, with a long window.

    The raw side needs the text of dropped documents (`output.dropped_text`).
    """
    roles = {"raw": ("kept", "dropped"), "curated": ("kept",)}
    if not curated.content.recipe.get("output", {}).get("dropped_text", True):
        del roles["raw"]
    streams = {side: _stream(folder, curated, wanted) for side, wanted in roles.items()}
    with ThreadPoolExecutor(2) as pool:  # zstandard works without the GIL
        sizes = dict(zip(streams, pool.map(_compressed_size, streams.values()), strict=True))
    measured = {side: _ratio(8 * sizes[side], len(stream)) for side, stream in streams.items()}
    longest = max(map(len, streams.values()))
    extent = "all" if longest < STREAM_BYTES else f"the first {STREAM_BYTES >> 20} MiB of"
    return Rung(
        f"zstd-{STREAM_LEVEL} long, one stream",
        f"{extent} documents in dataset order, window {1 << WINDOW_LOG >> 20} MiB:"
        " redundancy between documents too",
        measured.get("raw"),
        measured.get("curated"),
    )


def _stream(folder: Path, curated: Manifest, roles: tuple[str, ...]) -> bytes:
    """Return the first bytes of the text of some roles, joined in dataset order."""
    parts: list[bytes] = []
    size = 0
    for text in _texts(folder, curated, roles):
        parts.append(text)
        size += len(text)
        if size >= STREAM_BYTES:
            break
    return b"".join(parts)[:STREAM_BYTES]


def _texts(folder: Path, curated: Manifest, roles: tuple[str, ...]) -> Iterator[bytes]:
    """Yield texts (UTF-8) in dataset order: by shard, then by (content hash, doc_id)."""
    wanted = ["content_hash", "doc_id", "text"]
    for entries in zip(*(curated.content.shards[role] for role in roles), strict=True):
        table = pa.concat_tables(
            pq.read_table(folder / entry.path, columns=wanted) for entry in entries
        )
        table = table.filter(pc.is_valid(table["text"]))
        keys = [(name, "ascending") for name in ("content_hash", "doc_id")]
        sortable = pa.table({name: table[name].cast(pa.binary()) for name, _ in keys})
        order = pc.sort_indices(sortable, sort_keys=keys)
        for text in table["text"].cast(pa.large_binary()).take(order):
            yield text.as_py()


def _compressed_size(data: bytes) -> int:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        STREAM_LEVEL, window_log=WINDOW_LOG, enable_ldm=True
    )
    return len(zstandard.ZstdCompressor(compression_params=parameters).compress(data))


def token_rungs(folder: Path) -> list[Rung]:
    """Return the two rungs of the tokenizer: fixed-length codes, and the entropy of tokens."""
    dataset = TokenDataset.open(folder)
    curated, everything, is_whole = count_tokens(dataset)
    sides = (everything if _holds_dropped(dataset.manifest) else None, curated)
    fixed = [side.fixed_bpb if side and side.bytes else None for side in sides]
    entropy = [side.entropy_bpb if side and side.bytes else None for side in sides]
    extent = "" if is_whole else f" (of the first {SAMPLE_TOKENS >> 20} Mi tokens)"
    return [
        Rung(
            "tokens · log₂ V",
            f"every token at log₂ {dataset.vocab_size:,} bits{extent}: what the tokenizer's"
            " pieces gain",
            *fixed,
        ),
        Rung(
            "unigram entropy of tokens",
            f"every token at −log₂ of its own frequency{extent}: what frequencies gain",
            *entropy,
        ),
    ]


def _holds_dropped(tokens: Manifest) -> bool:
    tokenize: dict[str, Any] = tokens.content.recipe.get("tokenize", {})
    return tokenize.get("documents") == "all"


def count_tokens(
    dataset: TokenDataset, limit: int = SAMPLE_TOKENS
) -> tuple[TokenCounts, TokenCounts, bool]:
    """Count token ids of kept and of all documents, and tell whether that was all of them.

    Raises:
        CorruptError: a block does not match its hash.
    """
    kept = np.zeros(dataset.vocab_size, np.int64)
    both = kept.copy()
    kept_bytes = both_bytes = tokens = 0
    for index in range(len(dataset.entries)):
        if tokens >= limit:
            return TokenCounts(kept, kept_bytes), TokenCounts(both, both_bytes), False
        shard = dataset.shard(index)
        chosen = select(shard.batch, "dropped == ''")
        sizes = np.asarray(shard.batch.column("bytes"))
        kept_bytes += int(sizes[chosen].sum())
        both_bytes += int(sizes.sum())
        of_kept = np.repeat(chosen, np.diff(shard.offsets))
        for start in range(0, len(of_kept), _CHUNK):
            part = of_kept[start : start + _CHUNK]
            ids = dataset.tokens(index, start, len(part))
            kept += np.bincount(ids[part], minlength=len(kept))
            both += np.bincount(ids, minlength=len(both))
        tokens += len(of_kept)
    return TokenCounts(kept, kept_bytes), TokenCounts(both, both_bytes), True


def model_rung(study: Study) -> Rung:
    """Return the trained models' rung: the arm with dropped documents, and the one without.

    An arm that never mentions the column `dropped` trains on raw documents.
    """
    sides: dict[bool, float] = {}
    for arm in study.arms.values():
        sides.setdefault("dropped" in columns(arm.select), arm.bpb)
    return Rung(
        "language model",
        f"trained on {study.tokens:,} tokens of this side, measured on"
        f" {study.valid.documents:,} held-out documents (the same for both): what context gains",
        sides.get(False),
        sides.get(True),
    )
