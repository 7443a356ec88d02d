"""Look documents up in a documents dataset by doc_id, its first digits, or the record's own id."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.curate.schema import DECISION, EVIDENCE, PROVENANCE
from shards.config import did_you_mean
from shards.errors import CorruptError, DatasetError
from shards.manifest import read_manifest
from shards.verify import check_shard

_IDS = ("doc_id", "content_hash", "cluster", "matched")
_OWN = {field.name for field in [*PROVENANCE, *DECISION, *EVIDENCE]}


def places(mask: pa.ChunkedArray) -> list[int]:
    """Return the rows where a boolean column is true.

    pyarrow 25's own `indices_nonzero` crashes the process where the column has no chunk.
    """
    rows: list[int] = np.flatnonzero(mask.fill_null(False).to_numpy()).tolist()
    return rows


class Lookup:
    """Finds documents by scanning the id columns of a dataset's shards (16 bytes a document)."""

    def __init__(self, folder: str) -> None:
        """Open a documents dataset.

        Raises:
            DatasetError: not a dataset, or a tokens dataset.
        """
        self._folder = Path(folder)
        self.manifest = read_manifest(folder)
        if self.manifest.content.kind != "documents":
            raise DatasetError(
                f"{folder}: is a {self.manifest.content.kind} dataset; its documents are in its"
                f" parent dataset {', '.join(self.manifest.content.parents)}"
            )
        self._entries = {
            self._folder / entry.path: entry
            for role in ("kept", "dropped")
            for entry in self.manifest.content.shards[role]
        }
        self._paths = list(self._entries)
        self.signals = [name for name in self._names(self._paths[0]) if name not in _OWN]

    def find(self, asked: str) -> dict[str, Any]:
        """Return one document by record id, or by doc_id (hex, a unique beginning is enough).

        A record's own id comes first: it may be a number, with which many doc_ids begin.

        Raises:
            DatasetError: none such, or more than one.
        """
        digits = asked.lower()
        is_hex = 0 < len(digits) <= 32 and all(digit in "0123456789abcdef" for digit in digits)
        found: list[tuple[Path, int, str]] = []
        named: list[tuple[Path, int, str]] = []
        for path in self._paths:
            table = self._read(path, ["doc_id", "id"])
            ids = [value.hex() for value in table["doc_id"].to_pylist()]
            named += [(path, row, ids[row]) for row in places(pc.equal(table["id"], asked))]
            if is_hex:
                found += [(path, n, own) for n, own in enumerate(ids) if own.startswith(digits)]
        found = named or found
        if not found:
            raise DatasetError(
                f"{self._folder}: no document {asked!r}: give 32 hex digits of a doc_id (or its"
                " first ones) or a record's own id"
                f"{'; or look into ' + self.earlier() if self.earlier() else ''}"
            )
        if len(found) > 1:
            some = ", ".join(value for _, _, value in found[:5])
            how = "one" if named else "more digits of one"
            raise DatasetError(
                f"{self._folder}: {len(found)} documents match {asked!r}: {some}"
                f"{', …' if len(found) > 5 else ''}; give {how}"
            )
        path, row, _ = found[0]
        return self._row(path, row)

    def by_doc_id(self, doc_id: str) -> dict[str, Any]:
        """Return one document by its full doc_id (hex).

        Raises:
            DatasetError: none such.
        """
        wanted = pa.scalar(bytes.fromhex(doc_id), type=pa.binary(16))
        for path in self._paths:
            for row in places(pc.equal(self._read(path, ["doc_id"])["doc_id"], wanted)):
                return self._row(path, row)
        raise DatasetError(f"{self._folder}: no document {doc_id}")

    def spans(self, doc_id: str) -> list[dict[str, Any]]:
        """Return the rows of the spans ledger about a document: what was found in it, and done."""
        wanted = pa.scalar(bytes.fromhex(doc_id), type=pa.binary(16))
        rows: list[dict[str, Any]] = []
        for entry in self.manifest.content.shards.get("spans", []):
            path = self._folder / entry.path
            mine = places(pc.equal(self._read(path, ["doc_id"])["doc_id"], wanted))
            if mine:
                check_shard(self._folder, entry)
                table = self._read(path, None).take(pa.array(mine))
                rows += table.drop_columns(["doc_id"]).to_pylist()
        return rows

    def earlier(self) -> str:
        """Say which datasets this one was held against; empty if none."""
        parents = self.manifest.content.parents
        if not parents:
            return ""
        folders = self.manifest.run.get("recipe", {}).get("dedup", {}).get("against") or parents
        return f"the earlier dataset(s) {', '.join(map(str, folders))}"

    def dropped_for(self, reason: str, limit: int) -> Iterator[dict[str, Any]]:
        """Yield the first `limit` ledger rows with a reason, without their texts.

        Raises:
            DatasetError: no document was dropped for it.
        """
        known = self.manifest.content.total.drops
        if reason not in known:
            hint = did_you_mean(reason, tuple(sorted(known)), "reasons")
            raise DatasetError(f"{self._folder}: nothing was dropped for {reason!r}{hint}")
        for entry in self.manifest.content.shards["dropped"]:
            path = self._folder / entry.path
            check_shard(self._folder, entry)
            columns = [name for name in self._names(path) if name != "text"]
            table = self._read(path, columns)
            for record in table.filter(pc.equal(table["reason"], reason)).to_pylist():
                if limit <= 0:
                    return
                limit -= 1
                yield self._plain(record)

    def position_unit(self, found: dict[str, Any]) -> str:
        """Say what a document's position counts: `row` in Parquet, `byte` elsewhere."""
        return "row" if str(found["path"]).endswith(".parquet") else "byte"

    def _row(self, path: Path, row: int) -> dict[str, Any]:
        """Read one row as plain data, ids as hex, with the input file's name.

        The shard is verified first: Parquet would show flipped bits as text.
        """
        check_shard(self._folder, self._entries[path])
        (record,) = self._read(path, None).slice(row, 1).to_pylist()
        return self._plain(record)

    def _plain(self, record: dict[str, Any]) -> dict[str, Any]:
        for name in _IDS:
            if record.get(name) is not None:
                record[name] = record[name].hex()
        names = self.manifest.run.get("paths", [])
        known = record["input"] < len(names)
        record["path"] = names[record["input"]] if known else f"input {record['input']}"
        return dict(record)

    def _names(self, path: Path) -> list[str]:
        with self._damage(path):
            names: list[str] = pq.read_schema(path).names
        return names

    def _read(self, path: Path, columns: list[str] | None) -> pa.Table:
        with self._damage(path):
            return pq.read_table(path, columns=columns)

    @contextmanager
    def _damage(self, path: Path) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise CorruptError(
                f"{path}: is missing; see `assay verify {self._folder}`, or curate again"
            ) from None
        except (OSError, pa.ArrowInvalid) as error:
            raise CorruptError(
                f"{path}: cannot be read ({error}); see `assay verify {self._folder}`"
            ) from None
