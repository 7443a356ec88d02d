"""Token shards one by one: what a worker of the tokenize job does with a shard number.

Token shard i holds the documents of kept shard i and, where dropped ones are asked for, those of
dropped shard i after them, so that the kept documents of a shard stay one run of tokens.
"""

from collections.abc import Iterator

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import files
from pipelines.beam import beam
from pipelines.commit import shard_path
from pipelines.context import Context
from pipelines.curate.reconcile import add_counts
from pipelines.progress import ProgressLog
from pipelines.sidecars import read_result, write_result
from shards.manifest import Counts, ShardEntry
from shards.tokens import TokenMetadata, encode_token_shard, shard_entry
from tokenizer.account import Account, account_by_language, account_by_source
from tokenizer.documents import encode_table, read_documents
from tokenizer.model import Tokenizer


class TokenizeContext(Context, frozen=True):
    """What a worker needs: `inputs[i]` are the document shards of token shard i, by role."""

    data: str
    out: str
    inputs: list[dict[str, ShardEntry]]
    sources: list[str]
    model: bytes
    results: str
    progress: str

    @property
    def home(self) -> str:
        """The folder of sidecars."""
        return self.results


class ShardResult(msgspec.Struct, frozen=True):
    """Sidecar of a finished shard; `without_text` counts documents that could not be read.

    `languages` is empty where the documents have no language column.
    """

    entry: ShardEntry
    sources: dict[str, Counts]
    without_text: int
    languages: dict[str, Account] = msgspec.field(default_factory=dict)


def encode_shard(
    tables: dict[str, pa.Table], tokenizer: Tokenizer, sources: list[str], where: str = "table"
) -> tuple[pa.Table, dict[str, Counts], int]:
    """Encode the documents of one token shard.

    Args:
        tables: rows of the document shards by role, `kept` before `dropped`.
        tokenizer, sources, where: as for `tokenizer.documents.encode_table`.

    Returns:
        The columns of the token shard, counts per source, and the number of dropped documents that
        have no text (they could not be read) and so are counted, but not encoded.
    """
    encoded: list[pa.Table] = []
    counts: list[dict[str, Counts]] = []
    without_text = 0
    for role, table in tables.items():
        readable = table.filter(pc.is_valid(table["text"]))
        without_text += len(table) - len(readable)
        encoded.append(encode_table(readable, tokenizer, sources, f"{where} ({role})"))
        accounts = account_by_source(encoded[-1], sources)
        counts.append(_kept(accounts) if role == "kept" else _dropped(table, accounts))
    return pa.concat_tables(encoded), add_counts(counts), without_text


def _kept(accounts: dict[str, Account]) -> dict[str, Counts]:
    return {
        source: Counts(
            read=account.documents,
            kept=account.documents,
            bytes_read=account.bytes,
            bytes_kept=account.bytes,
            tokens=account.tokens,
        )
        for source, account in accounts.items()
    }


def _dropped(table: pa.Table, accounts: dict[str, Account]) -> dict[str, Counts]:
    """Count dropped documents, those without text included; only the others have tokens."""
    counts: dict[str, Counts] = {}
    grouped = table.group_by(["source", "reason"]).aggregate([([], "count_all")])
    for row in grouped.to_pylist():
        count = counts.setdefault(row["source"], Counts())
        count.read += row["count_all"]
        count.dropped += row["count_all"]
        count.drops[row["reason"]] = row["count_all"]
    for source, account in accounts.items():
        counts[source].bytes_read = account.bytes
        counts[source].tokens = account.tokens
    return counts


class TokenizeShards(beam.DoFn):
    """Write the token shard of each number, unless it stands already; emits the number."""

    def __init__(self, context: TokenizeContext) -> None:
        self._context = context

    def setup(self) -> None:
        self._log = ProgressLog(self._context.progress)
        self._tokenizer = Tokenizer(self._context.model)

    def process(self, shard: int) -> Iterator[int]:
        result = read_result(self._context, shard, ShardResult)
        if result is None:
            result = self._write(shard)
            write_result(self._context, shard, result)
        counts = result.sources.values()
        self._log.add(sum(c.bytes_read for c in counts), sum(c.read for c in counts))
        yield shard

    def _write(self, shard: int) -> ShardResult:
        context, tokenizer = self._context, self._tokenizer
        tables = {
            role: read_documents(files.read_bytes(shard_path(context.data, entry)), entry)
            for role, entry in context.inputs[shard].items()
        }
        table, counts, without_text = encode_shard(
            tables, tokenizer, context.sources, f"shard {shard}"
        )
        metadata = TokenMetadata(tokenizer.sha256, tokenizer.vocab_size, tokenizer.eos_id)
        data = encode_token_shard(table, metadata)
        entry = shard_entry(
            f"tokens/{shard:05d}-of-{len(context.inputs):05d}.arrow",
            data,
            documents=len(table),
            tokens=sum(count.tokens for count in counts.values()),
        )
        files.write_atomic(shard_path(context.out, entry), data)
        return ShardResult(entry, counts, without_text, account_by_language(table))
