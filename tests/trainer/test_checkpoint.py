import pytest
import torch

from shards.errors import CorruptError
from trainer.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint

STATE = {"step": 3, "model": {"w": torch.arange(6.0)}, "loader": {"g": 8, "seed": 1}}


def test_round_trip_keeps_one_file(tmp_path):
    save_checkpoint(tmp_path, "key", 1, STATE)
    saved = save_checkpoint(tmp_path, "key", 3, STATE)
    entry, state = load_checkpoint(tmp_path, "key")
    assert entry == saved
    assert state["loader"] == STATE["loader"]
    assert torch.equal(state["model"]["w"], STATE["model"]["w"])
    assert {p.name for p in tmp_path.iterdir()} == {CHECKPOINT, "checkpoint-00000003.pt"}


def test_none_or_another_runs_checkpoint_is_no_checkpoint(tmp_path):
    assert load_checkpoint(tmp_path, "key") is None
    save_checkpoint(tmp_path, "other", 3, STATE)
    assert load_checkpoint(tmp_path, "key") is None


def test_every_kind_of_damage_is_found(tmp_path):
    entry = save_checkpoint(tmp_path, "key", 3, STATE)
    file = tmp_path / entry.file
    data = file.read_bytes()
    for place in range(0, len(data), len(data) // 40):
        file.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(CorruptError, match="expected sha256"):
            load_checkpoint(tmp_path, "key")
    file.write_bytes(data[:-1])
    with pytest.raises(CorruptError, match="expected sha256"):
        load_checkpoint(tmp_path, "key")
    file.unlink()
    with pytest.raises(CorruptError, match="is missing"):
        load_checkpoint(tmp_path, "key")
    (tmp_path / CHECKPOINT).write_text("{")
    with pytest.raises(CorruptError, match=CHECKPOINT):
        load_checkpoint(tmp_path, "key")
