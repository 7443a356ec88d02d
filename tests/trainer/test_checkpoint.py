import random
import shutil

import pytest
import torch

from shards.errors import CorruptError, TrainingError
from trainer.checkpoint import load_checkpoint, prune_checkpoints, save_checkpoint

STATE = {"step": 3, "model": {"w": torch.arange(6.0)}, "loader": {"g": 8, "seed": 1}}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def step_of(folder):
    return load_checkpoint(folder, "key").entry.step


def test_round_trip_keeps_the_newest(tmp_path):
    for step in (1, 2, 3):
        saved = save_checkpoint(tmp_path, "key", step, STATE | {"step": step}, keep=2)
    found = load_checkpoint(tmp_path, "key")
    assert found.entry == saved
    assert found.refused == []
    assert found.state["step"] == 3
    assert found.state["loader"] == STATE["loader"]
    assert torch.equal(found.state["model"]["w"], STATE["model"]["w"])
    kept = [f"checkpoint-0000000{step}.{end}" for step in (2, 3) for end in ("json", "pt")]
    assert names(tmp_path) == kept
    prune_checkpoints(tmp_path, "key", keep=1)
    assert names(tmp_path) == kept[2:]


def test_none_or_another_runs_checkpoint_is_no_checkpoint(tmp_path):
    assert load_checkpoint(tmp_path, "key") is None
    save_checkpoint(tmp_path, "other", 3, STATE)
    assert load_checkpoint(tmp_path, "key") is None
    save_checkpoint(tmp_path, "key", 1, STATE)
    assert names(tmp_path) == ["checkpoint-00000001.json", "checkpoint-00000001.pt"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("pair")
    for step in (1, 2):
        save_checkpoint(folder, "key", step, STATE | {"step": step})
    return folder


def test_every_flip_and_cut_is_refused_and_the_checkpoint_before_it_taken(pair, tmp_path):
    """300 random flips of one bit and 60 cuts, half in the manifest, half in the tensors' file."""
    dice = random.Random(1)
    folder = shutil.copytree(pair, tmp_path / "run")
    for trial in range(360):
        file = folder / f"checkpoint-00000002.{('json', 'pt')[trial % 2]}"
        good = file.read_bytes()
        place = dice.randrange(len(good))
        if trial < 300:
            bad = bytearray(good)
            bad[place] ^= 1 << dice.randrange(8)
        else:
            bad = good[:place]
        file.write_bytes(bad)
        found = load_checkpoint(folder, "key")
        assert found.entry.step == found.state["step"] == 1
        assert len(found.refused) == 1
        assert file.name in found.refused[0]
        file.write_bytes(good)
    assert step_of(folder) == 2


def test_a_file_without_its_manifest_was_never_a_checkpoint(pair, tmp_path):
    folder = shutil.copytree(pair, tmp_path / "run")
    (folder / "checkpoint-00000002.json").unlink()
    assert step_of(folder) == 1
    save_checkpoint(folder, "key", 3, STATE)
    assert "checkpoint-00000002.pt" not in names(folder)


def test_files_that_changed_places_are_refused(pair, tmp_path):
    folder = shutil.copytree(pair, tmp_path / "run")
    shutil.copy(folder / "checkpoint-00000001.pt", folder / "checkpoint-00000002.pt")
    assert step_of(folder) == 1
    (folder / "checkpoint-00000001.json").replace(folder / "checkpoint-00000009.json")
    with pytest.raises(CorruptError, match="no good checkpoint is left"):
        load_checkpoint(folder, "key")


def test_no_good_checkpoint_is_an_error_that_says_what_is_wrong_with_each(pair, tmp_path):
    folder = shutil.copytree(pair, tmp_path / "run")
    (folder / "checkpoint-00000002.pt").unlink()
    (folder / "checkpoint-00000001.json").write_text("{")
    with pytest.raises(CorruptError, match=r"00000002.pt: is missing.*00000001.json: not a check"):
        load_checkpoint(folder, "key")


def test_a_save_that_is_cut_off_anywhere_leaves_the_last_one(pair, tmp_path, monkeypatch):
    """Stop `write_atomic` before, between and after the two files of a save."""

    class Killed(BaseException):
        pass

    from trainer import checkpoint

    write = checkpoint.write_atomic
    for survived in (0, 1):
        folder = shutil.copytree(pair, tmp_path / str(survived))
        calls = []

        def killed(path, data, survived=survived, calls=calls):
            if len(calls) == survived:
                raise Killed
            calls.append(path)
            write(path, data)

        monkeypatch.setattr(checkpoint, "write_atomic", killed)
        with pytest.raises(Killed):
            save_checkpoint(folder, "key", 3, STATE | {"step": 3})
        assert step_of(folder) == 2


def test_a_full_disk_is_an_error_that_says_what_to_do(pair, tmp_path, monkeypatch):
    folder = shutil.copytree(pair, tmp_path / "run")

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.checkpoint.write_atomic", full)
    with pytest.raises(TrainingError, match=r"step 3 \(.* bytes\): No space left .* make room"):
        save_checkpoint(folder, "key", 3, STATE)
    assert step_of(folder) == 2
