"""Files of parts: what is read is what was written, or refused."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.parts import parts_stand, read_part, write_parts
from shards.errors import CorruptError

PARTS = st.lists(st.binary(max_size=20), min_size=1, max_size=4)


@given(PARTS, st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_part_is_as_it_was_written_or_refused(tmp_path, parts, data):
    path = tmp_path / "file"
    write_parts(str(path), parts)
    assert [read_part(str(path), n, "folder") for n in range(len(parts))] == parts
    assert parts_stand(str(path), len(parts))
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.sampled_from([len(whole), at]))
    path.write_bytes(whole[:cut])
    assert not parts_stand(str(path), len(parts))
    for number, part in enumerate(parts):
        found = None
        with contextlib.suppress(CorruptError):
            found = read_part(str(path), number, "folder")
        assert found in {None, part}


def test_a_file_that_is_missing_does_not_stand(tmp_path):
    assert not parts_stand(str(tmp_path / "none"), 1)
    write_parts(str(tmp_path / "file"), [b"a"])
    with pytest.raises(CorruptError, match="delete folder and run again"):
        read_part(str(tmp_path / "file"), 1, "folder")
