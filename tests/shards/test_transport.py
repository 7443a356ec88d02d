import shutil

import numpy as np
import pytest
import zstandard

from shards.errors import CorruptError, DatasetError, PlatformError
from shards.hashing import BLOCK_BYTES
from shards.manifest import (
    MANIFEST,
    check_paths,
    encode_manifest,
    new_manifest,
    read_manifest,
)
from shards.transport import pack, unpack
from shards.verify import verify

from .conftest import build_tokens, flip

SHARD = "tokens/00000-of-00002.arrow"


@pytest.fixture(scope="module")
def packed(big_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed")
    pack(big_folder, out)
    return out


@pytest.fixture
def carried(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / "carried")


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_files_come_out(big_folder, packed, tmp_path):
    assert all(name.endswith(".zst") for name in files(packed))
    sizes = []
    manifest = unpack(packed, tmp_path / "out", progress=sizes.append)
    assert files(tmp_path / "out") == files(big_folder)
    assert manifest.dataset_id == read_manifest(big_folder).dataset_id
    assert verify(tmp_path / "out") == []
    assert sum(sizes) == sum(path.stat().st_size for path in (big_folder / "tokens").iterdir())


def test_any_zstd_tool_reads_the_files(big_folder, packed):
    data = (packed / (SHARD + ".zst")).read_bytes()
    assert zstandard.ZstdDecompressor().decompress(data) == (big_folder / SHARD).read_bytes()


def test_says_how_much_it_wrote(big_folder, tmp_path):
    sizes = []
    _, size = pack(big_folder, tmp_path / "out", level=1, progress=sizes.append)
    assert size == sum(len(data) for data in files(tmp_path / "out").values())
    assert sum(sizes) == sum(path.stat().st_size for path in (big_folder / "tokens").iterdir())


def test_a_damaged_dataset_is_not_passed_on(big_folder, tmp_path):
    folder = shutil.copytree(big_folder, tmp_path / "ds")
    flip(folder / SHARD, BLOCK_BYTES + 3)
    with pytest.raises(CorruptError, match=r"block 1 of .*delete it and run `assay tokenize`"):
        pack(folder, tmp_path / "out")
    assert not (tmp_path / "out" / (MANIFEST + ".zst")).exists()


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_transport_never_becomes_a_dataset(carried, big_folder, tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = carried / (SHARD + ".zst")
    data = path.read_bytes()
    if seed % 3:
        flip(path, int(rng.integers(len(data))), int(rng.integers(8)))
    else:
        path.write_bytes(data[: int(rng.integers(len(data)))])
    out = tmp_path / "out"
    try:
        unpack(carried, out)
    except CorruptError as error:
        assert str(path) in str(error)  # noqa: PT017 - a flip may hit a bit without meaning
        assert not (out / MANIFEST).exists()
    else:
        assert files(out) == files(big_folder)


def test_a_damaged_manifest_is_refused(carried, tmp_path):
    path = carried / (MANIFEST + ".zst")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DatasetError, match=r"manifest\.json\.zst: "):
        unpack(carried, tmp_path / "out")
    path.write_bytes(b"not zstd")
    with pytest.raises(CorruptError, match="not a zstd file"):
        unpack(carried, tmp_path / "out")
    path.unlink()
    with pytest.raises(DatasetError, match="not a packed dataset"):
        unpack(carried, tmp_path / "out")


def test_a_missing_shard_and_one_that_is_too_long_are_named(carried, tmp_path):
    path = carried / (SHARD + ".zst")
    with path.open("ab") as file:
        file.write(zstandard.ZstdCompressor().compress(b"more"))
    with pytest.raises(CorruptError, match="holds more than"):
        unpack(carried, tmp_path / "out")
    path.unlink()
    with pytest.raises(DatasetError, match=r"arrow\.zst: is missing; copy"):
        unpack(carried, tmp_path / "out")


def test_goes_on_with_the_shards_that_are_not_there(carried, big_folder, tmp_path):
    out = tmp_path / "out"
    unpack(carried, out)
    (out / MANIFEST).unlink()
    (out / "tokens/00001-of-00002.arrow").write_bytes(b"half")
    (carried / (SHARD + ".zst")).unlink()  # it is there, so it is not asked for
    unpack(carried, out)
    assert files(out) == files(big_folder)


def test_foreign_files_are_left_alone(carried, big_folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("x")
    for work in (lambda out: unpack(carried, out), lambda out: pack(big_folder, out)):
        with pytest.raises(DatasetError, match=r"holds other files \(thesis\)"):
            work(tmp_path / "mine")
        with pytest.raises(DatasetError, match="is a file"):
            work(tmp_path / "mine" / "thesis")
        with pytest.raises(PlatformError, match="cannot be created"):
            work(tmp_path / "mine" / "thesis" / "below")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis"]


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a\\..\\x", ""])
def test_paths_that_lead_out_are_refused(tmp_path, path):
    content = read_manifest(build_tokens(tmp_path / "ds", [3])).content
    entry = content.shards["tokens"][0]
    fields = {name: getattr(entry, name) for name in entry.__struct_fields__}
    content.shards["tokens"] = [type(entry)(**{**fields, "path": path})]
    manifest = new_manifest(content, stage_key="", run={})
    with pytest.raises(DatasetError, match="leads out of the dataset"):
        check_paths(manifest, "x")
    (tmp_path / "evil").mkdir()
    packed = zstandard.ZstdCompressor().compress(encode_manifest(manifest))
    (tmp_path / "evil" / (MANIFEST + ".zst")).write_bytes(packed)
    with pytest.raises(DatasetError, match="leads out of the dataset"):
        unpack(tmp_path / "evil", tmp_path / "out")
