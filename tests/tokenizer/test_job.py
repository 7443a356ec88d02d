import msgspec
import pyarrow as pa
import pytest

from shards.errors import CorruptError, DatasetError, PlatformError, RecipeError
from shards.manifest import MANIFEST, encode_manifest, new_manifest, read_manifest
from tokenizer import job
from tokenizer.config import TokenizerConfig
from tokenizer.folder import INFO, MODEL, read_info
from tokenizer.job import train_tokenizer
from tokenizer.model import Tokenizer
from tokenizer.train import train_model


@pytest.fixture
def data(tmp_path, texts, make_table, make_dataset):
    """Two shards of training documents and some held out."""
    half = len(texts) // 2
    second = pa.concat_tables([make_table(texts[half:]), make_table(["held out"], split="valid")])
    make_dataset(tmp_path / "data", [make_table(texts[:half]), second])
    return tmp_path / "data"


def test_trains_on_the_training_split_only(data, tmp_path, texts, config):
    info = train_tokenizer(data, tmp_path / "out", config)
    assert info.sample.documents == len(texts)
    assert (tmp_path / "out" / MODEL).read_bytes() == train_model(texts, config)
    assert read_info(tmp_path / "out") == info
    assert info.dataset_id == read_manifest(data).dataset_id
    tokenizer = Tokenizer.load(tmp_path / "out")
    assert (tokenizer.sha256, tokenizer.pieces_hash) == (info.sha256, info.pieces_hash)
    assert info.special_ids == {"unk": 0, "eos": tokenizer.eos_id}


def test_two_trainings_give_the_same_files(data, tmp_path, config):
    for out in ("one", "two"):
        train_tokenizer(data, tmp_path / out, config)
    for name in (INFO, MODEL):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_is_skipped_until_something_that_matters_changes(data, tmp_path, config, monkeypatch):
    out = tmp_path / "out"
    info = train_tokenizer(data, out, config)
    said = []
    assert train_tokenizer(data, out, config, progress=said.append) == info
    assert said == []
    changed = msgspec.structs.replace(config, vocab_size=601)
    assert train_tokenizer(data, out, changed, progress=said.append).vocab_size == 601
    assert len(said) == 2
    (out / MODEL).write_bytes(b"damaged")
    assert train_tokenizer(data, out, changed).vocab_size == 601
    assert Tokenizer.load(out).vocab_size == 601


def test_takes_a_share_of_a_larger_dataset(data, tmp_path, texts):
    size = sum(len(text.encode()) for text in texts)
    config = TokenizerConfig(vocab_size=512, sample_bytes=size // 2)
    sample = train_tokenizer(data, tmp_path / "out", config).sample
    assert 0.25 * size < sample.bytes < 0.75 * size
    assert sample.share == pytest.approx(0.5, abs=0.01)


def test_an_empty_sample_says_what_to_raise(data, tmp_path):
    with pytest.raises(DatasetError, match=r"tokenizer\.sample_bytes = 1\): raise it"):
        train_tokenizer(data, tmp_path / "out", TokenizerConfig(sample_bytes=1))


def test_a_dataset_of_tokens_is_refused(data, tmp_path, config):
    content = msgspec.structs.replace(read_manifest(data).content, kind="tokens")
    manifest = new_manifest(content, stage_key="", run={})
    (data / MANIFEST).write_bytes(encode_manifest(manifest))
    with pytest.raises(DatasetError, match="holds tokens; train on curated documents"):
        train_tokenizer(data, tmp_path / "out", config)


def test_a_damaged_shard_is_found(data, tmp_path, config):
    shard = next((data / "kept").iterdir())
    raw = bytearray(shard.read_bytes())
    raw[100] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(CorruptError, match="block 0"):
        train_tokenizer(data, tmp_path / "out", config)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_shard_that_is_missing_or_empty_is_named(data, tmp_path, config):
    shard = sorted((data / "kept").iterdir())[1]
    shard.write_bytes(b"")
    with pytest.raises(CorruptError, match=rf"{shard}: 0 bytes, expected"):
        train_tokenizer(data, tmp_path / "out", config)
    shard.unlink()
    with pytest.raises(DatasetError, match=rf"{shard}: shard is missing; .*`assay curate`"):
        train_tokenizer(data, tmp_path / "out", config)


def test_outputs_that_are_not_ours_are_refused_and_kept(data, tmp_path, config):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for name in (MODEL, INFO):
        (foreign / name).write_text("{}")
        with pytest.raises(RecipeError, match="not a tokenizer of Assay, nothing was changed"):
            train_tokenizer(data, foreign, config)
    assert [path.read_text() for path in foreign.iterdir()] == ["{}", "{}"]
    with pytest.raises(RecipeError, match="is a file; --out must be a folder"):
        train_tokenizer(data, foreign / INFO, config)
    with pytest.raises(PlatformError, match="cannot be written to: Not a directory"):
        train_tokenizer(data, foreign / INFO / "deeper", config)


def test_the_key_names_the_trainer(data, config, monkeypatch):
    manifest = read_manifest(data)
    before = job.tokenizer_key(manifest, config)
    monkeypatch.setattr(job.sentencepiece, "__version__", "0.0")
    assert job.tokenizer_key(manifest, config) != before
