import json
import shutil
from itertools import count

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from shards.cache import CacheOptions
from shards.dataset import TokenDataset
from shards.errors import CorruptError, DatasetError, PlatformError, RecipeError, TrainingError
from shards.hashing import BLOCK_BYTES
from shards.loader import Loader
from shards.manifest import MANIFEST, encode_manifest, new_manifest, read_manifest
from shards.window import NO_WINDOW, Window

from .conftest import build_tokens, flip

MIB = 1 << 20
names = count()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Two shards of 12 blocks each."""
    lengths = [60_000 + (i * 7919) % 40_000 for i in range(75)]
    return build_tokens(tmp_path_factory.mktemp("wide"), lengths, lengths[::-1])


class Afar:
    """A copy of the dataset in fsspec's memory file system; `faults` hooks into reads of shards."""

    def __init__(self, folder, cache):
        self.url = f"memory://assay{next(names)}"
        fsspec.filesystem("memory").put(str(folder), self.url, recursive=True)
        self.cache, self.faults, self.reads, self.opened = cache, {}, [], []

    def open(self, **options):
        fast = {"backoff_seconds": 0.0, "threads": 3}
        dataset = TokenDataset.open(self.url, CacheOptions(self.cache, **{**fast, **options}))
        self.opened.append(dataset)
        return dataset


@pytest.fixture
def afar(local, tmp_path, monkeypatch):
    monkeypatch.setattr("shards.cache._MIN_BLOCKS", 4)
    made = Afar(local, tmp_path / "cache")
    read = MemoryFileSystem.cat_file

    def cat_file(self, path, start=None, end=None, **more):
        data = read(self, path, start=start, end=end, **more)
        if start is None:
            return data
        made.reads.append((path.rpartition("/")[2], start // BLOCK_BYTES))
        fault = made.faults.get(made.reads[-1])
        return fault(data, made.reads.count(made.reads[-1])) if fault else data

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    yield made
    for dataset in made.opened:
        dataset.close()


def loader(dataset, **options):
    return Loader(
        dataset.select(), **{"sequence_length": 5000, "batch_size": 8, "seed": 3, **options}
    )


def epoch_equals(one, other):
    for _ in range(-(-one.samples_per_epoch // 8) + 2):
        np.testing.assert_array_equal(one.next().tokens, other.next().tokens)


def read_on(source):
    for _ in range(source.samples_per_epoch):
        source.next()


def on_disk(folder):
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*.arrow"))


def test_gives_what_the_local_dataset_gives_and_fetches_each_block_once(afar, local):
    epoch_equals(loader(afar.open()), loader(TokenDataset.open(local)))
    assert len(afar.reads) == len(set(afar.reads)) == 24
    afar.opened[-1].close()
    epoch_equals(loader(afar.open()), loader(TokenDataset.open(local)))
    assert len(afar.reads) == 24


def test_fetches_only_what_is_touched(afar):
    source = loader(afar.open(), sequence_length=50, batch_size=1)
    source.view.dataset.cache.request = lambda shard, blocks: []  # no look ahead
    assert len(afar.reads) == 4  # first and last block of two shards
    del source.view.dataset.cache.request
    source.next()
    assert 4 <= len(set(afar.reads)) < 24


@pytest.mark.parametrize("window", [NO_WINDOW, Window(chunk=100, chunks=2)])
def test_a_bounded_cache_gives_the_same_and_keeps_its_bound(afar, local, window):
    source = loader(afar.open(max_bytes=13 * MIB), window=window)
    plain = loader(TokenDataset.open(local), window=window)
    for _ in range(plain.samples_per_epoch // (4 if window.chunk else 40)):
        np.testing.assert_array_equal(source.next().tokens, plain.next().tokens)
        assert on_disk(afar.cache) <= 14 * MIB  # one block comes before another goes
    if window != NO_WINDOW:
        assert len(afar.reads) <= 2 * 2 * 24  # a chunk is as long as a block, and lies in two


def test_documents_of_a_bounded_cache_are_copies_that_stay(afar, local):
    far = list(afar.open(max_bytes=8 * MIB).select())
    near = list(TokenDataset.open(local).select())
    assert [document.doc_id for document in far] == [document.doc_id for document in near]
    for one, other in zip(far, near, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)


def test_a_block_that_is_bad_once_is_fetched_again(afar, local):
    def once_bad(data, times):
        return bytes([data[0] ^ 1]) + data[1:] if times == 1 else data

    def once_short(data, times):
        return data[:-1] if times == 1 else data

    def twice_down(data, times):
        if times < 3:
            raise ConnectionError("reset")
        return data

    faults = [once_bad, once_short, twice_down]
    for block, fault in zip((0, 2, 4), faults, strict=True):
        afar.faults["00001-of-00002.arrow", block] = fault
    epoch_equals(loader(afar.open()), loader(TokenDataset.open(local)))
    assert len(afar.reads) == 24 + 1 + 1 + 2


def test_a_block_that_stays_bad_stops_with_file_block_and_hashes(afar, local):
    afar.faults["00001-of-00002.arrow", 3] = lambda data, times: data[:5] + b"x" + data[6:]
    source = loader(afar.open(attempts=3))
    expected = read_manifest(local).content.shards["tokens"][1].blocks[3]
    with pytest.raises(CorruptError) as caught:
        read_on(source)
    message = str(caught.value)
    assert f"{afar.url}/tokens/00001-of-00002.arrow: block 3 (bytes from {3 * MIB})" in message
    assert f"expected xxh3-128 {expected}, found " in message
    assert "fetched 3 times" in message
    g = source.state()["g"]
    afar.faults.clear()  # and after it was repaired the run goes on where it stopped
    plain = loader(TokenDataset.open(local))
    plain.load_state({**plain.state(), "g": g})
    epoch_equals(source, plain)


def test_a_network_that_stays_down_and_a_missing_shard_are_told_apart(afar):
    def down(data, times):
        raise TimeoutError("no answer")

    afar.faults["00000-of-00002.arrow", 0] = down
    with pytest.raises(PlatformError, match=r"block 0 .* fetched 2 times: TimeoutError: no answer"):
        afar.open(attempts=2).select()
    afar.opened[-1].close()
    fsspec.filesystem("memory").rm(f"{afar.url}/tokens/00000-of-00002.arrow")
    afar.faults.clear()
    with pytest.raises(DatasetError, match=r"00000-of-00002\.arrow: block 0 .*: no such file"):
        afar.open().select()


@pytest.mark.parametrize("damage", ["flip", "half"])
def test_a_damaged_cache_is_noticed_and_filled_again(afar, local, damage):
    dataset = afar.open()
    epoch_equals(loader(dataset), loader(TokenDataset.open(local)))
    path = dataset.cache.path(0)
    dataset.close()
    if damage == "flip":
        flip(path, 2 * MIB + 77)
    else:  # as a kill in the middle of writing leaves it
        with path.open("r+b") as file:
            file.truncate(2 * MIB + 500_000)
            file.truncate(read_manifest(local).content.shards["tokens"][0].bytes)
    before = len(afar.reads)
    epoch_equals(loader(afar.open()), loader(TokenDataset.open(local)))
    assert ("00000-of-00002.arrow", 2) in afar.reads[before:]
    assert len(afar.reads) - before == (1 if damage == "flip" else 10)


def test_a_smaller_bound_drops_what_an_earlier_process_left(afar, local):
    epoch_equals(loader(afar.open()), loader(TokenDataset.open(local)))
    afar.opened[-1].close()
    assert on_disk(afar.cache) > 20 * MIB
    near, far = loader(TokenDataset.open(local)), loader(afar.open(max_bytes=7 * MIB))
    for _ in range(5):
        np.testing.assert_array_equal(far.next().tokens, near.next().tokens)
    assert on_disk(afar.cache) <= 8 * MIB


def test_a_bounded_cache_is_for_one_process(afar):
    afar.open()
    afar.open()  # without a bound nothing goes, so it may be shared
    with pytest.raises(PlatformError, match="another process uses this cache"):
        afar.open(max_bytes=8 * MIB)
    for dataset in afar.opened:
        dataset.close()
    afar.open(max_bytes=8 * MIB)


def test_refuses_caches_that_cannot_work(afar, tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match="max_bytes = 1,048,576 is below"):
        afar.open(max_bytes=MIB)
    with pytest.raises(RecipeError, match="leaves no room for tokens"):
        afar.open(max_bytes=4 * MIB).select()
    with pytest.raises(RecipeError, match=r"needs a folder for the blocks .*--cache FOLDER"):
        TokenDataset.open(afar.url)
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match="cannot be written to"):
        TokenDataset.open(afar.url, CacheOptions(tmp_path / "file"))

    def cannot(*_):
        raise OSError(95, "not supported")

    monkeypatch.setattr("shards.cache._punch", cannot)
    with pytest.raises(PlatformError, match="cannot give back parts of files"):
        TokenDataset.open(afar.url, CacheOptions(tmp_path / "other", max_bytes=8 * MIB))


def test_a_full_disk_is_told(afar, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    dataset = afar.open()
    monkeypatch.setattr("shards.cache._write", full)
    with pytest.raises(PlatformError, match="cannot be written to: No space left on device"):
        dataset.select()


def test_refuses_manifests_that_would_write_elsewhere(afar, local, tmp_path):
    evil = shutil.copytree(local, tmp_path / "evil")
    content = read_manifest(evil).content
    entry = content.shards["tokens"][0]
    fields = {name: getattr(entry, name) for name in entry.__struct_fields__}
    content.shards["tokens"][0] = type(entry)(**{**fields, "path": "../../x"})
    (evil / MANIFEST).write_bytes(encode_manifest(new_manifest(content, stage_key="", run={})))
    with pytest.raises(DatasetError, match="leads out of the dataset"):
        Afar(evil, tmp_path / "cache").open()


def test_says_what_is_wrong_with_a_url(tmp_path):
    options = CacheOptions(tmp_path, attempts=1)
    with pytest.raises(DatasetError, match=r"memory://none/manifest\.json: no such file"):
        TokenDataset.open("memory://none", options)
    with pytest.raises(PlatformError, match="nonsense"):
        TokenDataset.open("nonsense://x", options)


def test_the_window_is_part_of_the_state(local):
    dataset = TokenDataset.open(local)
    wide, narrow = loader(dataset, window=Window(100, 4)), loader(dataset, window=Window(100, 2))
    state = json.loads(json.dumps(wide.state()))
    with pytest.raises(TrainingError, match=r"order was .* windowed/1 100x4' .* 100x2' now"):
        narrow.load_state(state)
    wide.next()
    assert len(json.dumps(wide.state())) < 300
    g = wide.state()["g"]
    spans = wide.locate(g)
    assert sum(span.length for span in spans) == wide.next().lengths[0]


def test_a_window_is_planned_for_what_the_columns_leave(afar):
    dataset = afar.open(max_bytes=20 * MIB)
    dataset.select()
    assert dataset.cache.token_bytes == 16 * MIB
