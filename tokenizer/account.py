"""Token accounting: how many bytes of text a token stands for, in all and per source."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow as pa


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
    source_ids = table["source_id"].to_numpy()
    lengths = table["bytes"].to_numpy()
    offsets = table["tokens"].combine_chunks().offsets.to_numpy()
    tokens = np.diff(offsets)
    found = {}
    for number in np.unique(source_ids).tolist():
        rows = source_ids == number
        found[sources[number]] = Account(
            int(rows.sum()), int(lengths[rows].sum()), int(tokens[rows].sum())
        )
    return found
