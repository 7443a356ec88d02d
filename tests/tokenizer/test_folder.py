import pytest

from shards.errors import CorruptError, DatasetError, PlatformError
from tokenizer.config import TokenizerConfig
from tokenizer.folder import (
    INFO,
    MODEL,
    Sample,
    TokenizerInfo,
    check_output,
    read_info,
    write_folder,
)
from tokenizer.model import Tokenizer


@pytest.fixture
def folder(tmp_path, model, tokenizer):
    info = TokenizerInfo(
        stage_key="k",
        dataset_id="d",
        config=TokenizerConfig(),
        definitions={},
        sample=Sample(1, 2, 0.5),
        sha256=tokenizer.sha256,
        pieces_hash=tokenizer.pieces_hash,
        vocab_size=tokenizer.vocab_size,
        special_ids={"unk": 0, "eos": 1},
    )
    write_folder(tmp_path / "tok", model, info)
    return tmp_path / "tok"


def test_loads_a_folder_and_a_bare_model(folder, tokenizer):
    assert Tokenizer.load(folder).sha256 == tokenizer.sha256
    assert Tokenizer.load(folder / MODEL).sha256 == tokenizer.sha256


def test_a_changed_model_is_found(folder):
    raw = bytearray((folder / MODEL).read_bytes())
    raw[-1] ^= 1
    (folder / MODEL).write_bytes(raw)
    with pytest.raises(CorruptError, match=r"tokenizer\.model: sha256 is .* states"):
        Tokenizer.load(folder)


def test_what_a_killed_job_leaves_is_not_loaded_but_can_be_finished(folder, model, monkeypatch):
    info = read_info(folder)
    (folder / MODEL).unlink()
    (folder / f"{MODEL}.partial-0").write_bytes(b"half")
    with pytest.raises(DatasetError, match="is missing, though"):
        Tokenizer.load(folder)
    check_output(folder)
    write_folder(folder, model, info)
    assert Tokenizer.load(folder).sha256 == info.sha256


def test_a_full_disk_is_an_error_of_ours(folder, model, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tokenizer.folder.write_atomic", full)
    with pytest.raises(PlatformError, match="cannot be written to: No space left"):
        write_folder(folder, model, read_info(folder))


def test_says_what_is_missing(folder, tmp_path):
    with pytest.raises(DatasetError, match="no such tokenizer"):
        Tokenizer.load(tmp_path / "none")
    with pytest.raises(DatasetError, match=r"not a tokenizer \(no tokenizer\.json\)"):
        Tokenizer.load(tmp_path)
    (folder / MODEL).unlink()
    with pytest.raises(DatasetError, match=r"tokenizer\.model: is missing"):
        Tokenizer.load(folder)
    (folder / INFO).write_text("{")
    with pytest.raises(DatasetError, match="not a tokenizer's description"):
        read_info(folder)
