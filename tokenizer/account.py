"""Token accounting: how many bytes of text a token stands for, in all, per source, per language."""

from collections.abc import Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

LANGUAGE_COLUMNS = ("language", "lang")
"""Names under which a documents dataset may state each document's language; the first counts."""

UNKNOWN = "unknown"
"""The language of documents for which the column holds none."""


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Documents, their UTF-8 bytes, and their tokens, each document's EOS included."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text per token, EOS included; 0 where there are no tokens."""
        return self.bytes / self.tokens if self.tokens else 0.0

    def __add__(self, other: "Account") -> "Account":
        return Account(
            self.documents + other.documents,
            self.bytes + other.bytes,
            self.tokens + other.tokens,
        )


def account_by_source(table: pa.Table, sources: Sequence[str]) -> dict[str, Account]:
    """Sum up the documents of a token table (`source_id`, `bytes`, `tokens`) per source.

    Sources without documents are left out.
    """
    names = pa.array(sources, pa.string())
    return _account(table, names.take(table["source_id"].combine_chunks()))


def account_by_language(table: pa.Table) -> dict[str, Account]:
    """Sum up the documents of a token table per language; nothing without a language column."""
    labels = languages(table)
    return {} if labels is None else _account(table, labels)


def languages(table: pa.Table) -> pa.StringArray | None:
    """Return each document's language, `UNKNOWN` for null; None without a column of strings."""
    for name in LANGUAGE_COLUMNS:
        if name in table.column_names:
            column = table[name].combine_chunks()
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                return pc.fill_null(column.cast(pa.string()), UNKNOWN)
    return None


def _account(table: pa.Table, labels: pa.StringArray) -> dict[str, Account]:
    lengths = pc.list_value_length(table["tokens"])
    columns = pa.table({"label": labels, "bytes": table["bytes"], "tokens": lengths})
    grouped = columns.group_by("label").aggregate(
        [([], "count_all"), ("bytes", "sum"), ("tokens", "sum")]
    )
    return {
        row["label"]: Account(row["count_all"], row["bytes_sum"], row["tokens_sum"])
        for row in sorted(grouped.to_pylist(), key=lambda row: str(row["label"]))
    }
