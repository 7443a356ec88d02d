import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from pipelines.readers import Fields, Range, plan_ranges, read_range

Row = dict[str, Any]


class Memory:
    """Files in memory, and the whole way from a path to rows."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def open(self, path: str) -> io.BytesIO:
        return io.BytesIO(self.files[path])

    def plan(
        self, path: str, data: bytes, range_bytes: int = 1 << 20, **kwargs: Any
    ) -> list[Range]:
        self.files[path] = data
        format_ = kwargs.pop("format", "auto")
        return plan_ranges(path, format_, len(data), self.open, range_bytes, **kwargs)

    def read(self, range_: Range, **kwargs: Any) -> list[Row]:
        batches = list(read_range(range_, self.open, kwargs.pop("fields", Fields()), **kwargs))
        assert all(batch.num_rows for batch in batches)
        for batch in batches:
            batch.validate(full=True)
        return pa.Table.from_batches(batches).to_pylist() if batches else []

    def rows(self, path: str, data: bytes, range_bytes: int = 1 << 20, **kwargs: Any) -> list[Row]:
        plan = {"format": kwargs.pop("format", "auto"), "fields": kwargs.get("fields")}
        rows = []
        for range_ in self.plan(path, data, range_bytes, **plan):
            own = self.read(range_, **kwargs)
            assert all(range_.start <= row["position"] < range_.end for row in own)
            rows += own
        return rows


@pytest.fixture(scope="session")
def memory() -> Memory:
    return Memory()


@pytest.fixture(scope="session")
def one_row(memory: Memory) -> Callable[..., Row]:
    """Read a JSON line that must give one row."""

    def read(line: bytes, **kwargs: Any) -> Row:
        (row,) = memory.rows("x.jsonl", line + b"\n", **kwargs)
        return row

    return read
