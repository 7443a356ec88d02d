"""`inspect` and `verify` of datasets at URLs, on a file system that fails."""

from itertools import count

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from shards.hashing import BLOCK_BYTES
from shards.manifest import read_manifest
from shards.verify import verify

from .conftest import build_tokens

names = count()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """One shard of 3 blocks and a small one."""
    return build_tokens(tmp_path_factory.mktemp("far") / "ds", [400_000] * 3, [5, 6])


@pytest.fixture
def far(local, monkeypatch):
    """The URL of a copy; pauses between tries are not waited for."""
    monkeypatch.setattr("shards.remote.time.sleep", pauses.append)
    pauses.clear()
    url = f"memory://cli{next(names)}"
    fsspec.filesystem("memory").put(str(local), url, recursive=True)
    return url


pauses: list[float] = []


def change(path, position):
    files = fsspec.filesystem("memory")
    data = bytearray(files.cat_file(path))
    data[position] ^= 1
    files.pipe_file(path, bytes(data))


def test_says_of_a_url_what_it_says_of_the_folder(call, far, local):
    for command in (["inspect", "--json"], ["verify"], ["verify", "--quick"]):
        there, here = (call(*command, place) for place in (far, local))
        assert there[0] == here[0] == 0
        assert there[1].replace(far, "") == here[1].replace(str(local), "")


def test_verify_names_what_is_wrong_afar(call, far, local):
    files = fsspec.filesystem("memory")
    big, small = f"{far}/tokens/00000-of-00002.arrow", f"{far}/tokens/00001-of-00002.arrow"
    change(big, BLOCK_BYTES + 5)
    files.pipe_file(small, files.cat_file(small)[:-8])
    files.pipe_file(f"{far}/tokens/x.arrow", b"x")
    code, out, err = call("verify", far)
    assert code == 1
    first, second, third = out.splitlines()
    expected = read_manifest(local).content.shards["tokens"][0].blocks[1]
    assert first.startswith(f"{big} block 1: expected xxh3-128 {expected}, found ")
    assert "fetched 5 times" in first
    assert second.startswith(f"{small} block 0: truncated: ")
    assert third == f"{far}/tokens/x.arrow: is not in the manifest"
    assert "problems: 3, files: 3" in err
    assert [round(p / q) for p, q in zip(pauses, (0.5, 1, 2, 4), strict=True)] == pytest.approx(
        [1] * 4, abs=1
    )
    files.rm(f"{far}/tokens", recursive=True)
    assert [p.message for p in verify(far)] == ["is missing"] * 2


def test_verify_gets_over_a_network_that_fails_at_times(call, far, monkeypatch):
    read, seen = MemoryFileSystem.cat_file, set()

    def flaky(self, path, start=None, end=None, **more):
        if (path, start) not in seen:
            seen.add((path, start))
            raise ConnectionError("reset by peer")
        return read(self, path, start=start, end=end, **more)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", flaky)
    assert call("verify", far)[0] == 0

    def down(self, path, start=None, end=None, **more):
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", down)
    code, _, err = call("inspect", far)
    assert code == 1
    assert "cannot be read, fetched 5 times: ConnectionError: reset by peer" in err
    assert call("inspect", "memory://none")[0] == 1
