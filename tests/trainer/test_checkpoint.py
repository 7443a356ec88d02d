import math
import random
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import CorruptError, TrainingError
from trainer.checkpoint import (
    Piece,
    commit_checkpoint,
    load_checkpoint,
    load_step,
    prune_checkpoints,
    save_checkpoint,
    write_part,
)
from trainer.history import Times

STATE = {"step": 3, "model": {"w": torch.arange(6.0)}, "loader": {"g": 8, "seed": 1}}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def files(step):
    stem = f"checkpoint-{step:08d}"
    return [f"{stem}.0-of-1.safetensors", f"{stem}.json"]


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
    kept = [name for step in (2, 3) for name in files(step)]
    assert names(tmp_path) == kept
    prune_checkpoints(tmp_path, "key", keep=1)
    assert names(tmp_path) == kept[2:]


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("step", [3, 5, 6])
def test_a_refused_checkpoint_is_not_one_of_the_kept(tmp_path, keep, step):
    """Checkpoint 5 is damaged in its data, which its manifest does not show; the run has 2."""
    for number in (1, 2, 5):
        save_checkpoint(tmp_path, "key", number, STATE | {"step": number}, keep=3)
    flip(tmp_path / files(5)[0])
    prune_checkpoints(tmp_path, "key", keep, newest=step_of(tmp_path))
    assert names(tmp_path) == [name for number in (1, 2)[-keep:] for name in files(number)]
    save_checkpoint(tmp_path, "key", step, STATE, keep=keep)
    assert names(tmp_path) == [name for number in (2, step)[-keep:] for name in files(number)]


def test_what_was_just_written_stays_before_one_of_a_later_step(tmp_path):
    save_checkpoint(tmp_path, "key", 5, STATE)
    save_checkpoint(tmp_path, "key", 3, STATE, keep=1)
    assert names(tmp_path) == files(3)


def test_a_pinned_checkpoint_stays_does_not_count_and_can_be_asked_for(tmp_path):
    for number in (1, 2, 3):
        save_checkpoint(tmp_path, "key", number, STATE | {"step": number}, keep=9)
    prune_checkpoints(tmp_path, "key", 1, newest=3, pinned=1)
    assert names(tmp_path) == files(1) + files(3)
    assert load_step(tmp_path, "key", 1).entry.step == 1
    with pytest.raises(CorruptError, match=r"00000002.json: is missing; run .* again: .* step 1$"):
        load_step(tmp_path, "key", 2)
    prune_checkpoints(tmp_path, "key", 2, newest=3, pinned=3)
    assert names(tmp_path) == files(1) + files(3)


@settings(deadline=None, max_examples=20)
@given(st.sets(st.integers(1, 9), min_size=1), st.sets(st.integers(1, 9)))
def test_a_checkpoint_is_taken_with_the_one_it_goes_back_to_if_any_is(good, flipped):
    """As a model of it: the newest that is good with its multiple of 3; else the newest good."""

    def needs(step):
        return step - step % 3 or None

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for step in sorted(good | flipped):
            save_checkpoint(folder, "key", step, STATE | {"step": step}, keep=9)
        for step in flipped:
            flip(folder / files(step)[0])
        fine = good - flipped
        whole = [step for step in fine if needs(step) in fine | {None}]
        if not fine:
            with pytest.raises(CorruptError, match="no good checkpoint is left"):
                load_checkpoint(folder, "key", needs=needs)
            return
        found = load_checkpoint(folder, "key", needs=needs)
        assert found.entry.step == found.state["step"] == max(whole or fine)
        passed = [step for step in good | flipped if step > found.entry.step]
        assert bool(found.refused) == bool(passed or not whole)
        for step in {1, 4, 7} - fine:
            older = max((other for other in whole if other < step), default=None)
            advice = "no older one is good" if older is None else f"checkpoint of step {older}$"
            with pytest.raises(CorruptError, match=advice):
                load_step(folder, "key", step, needs=needs)


def test_the_checkpoint_that_a_run_has_stays_though_its_manifest_cannot_be_read(pair, tmp_path):
    folder = shutil.copytree(pair, tmp_path / "run")
    flip(folder / files(2)[1])
    prune_checkpoints(folder, "key", 1, newest=2)
    assert names(folder) == files(2)


def test_a_folder_in_place_of_a_file_is_refused_and_moved_aside(pair, tmp_path):
    for number, name in enumerate(files(2)):
        folder = shutil.copytree(pair, tmp_path / str(number))
        (folder / name).unlink()
        (folder / name / "mine").mkdir(parents=True)
        found = load_checkpoint(folder, "key")
        assert found.entry.step == 1
        assert name in found.refused[0]
        prune_checkpoints(folder, "key", 2, newest=1)
        assert list(folder.glob(f"damaged-*-{name}/mine"))
        save_checkpoint(folder, "key", 2, STATE)
        assert step_of(folder) == 2


def test_a_manifest_that_the_disk_does_not_give_is_refused(pair, monkeypatch):
    read = Path.read_bytes

    def bad_sector(path):
        if path.name == files(2)[1]:
            raise OSError(5, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", bad_sector)
    found = load_checkpoint(pair, "key")
    assert found.entry.step == 1
    assert "00000002.json: cannot be read: Input/output error" in found.refused[0]


def test_none_or_another_runs_checkpoint_is_no_checkpoint(tmp_path):
    assert load_checkpoint(tmp_path, "key") is None
    save_checkpoint(tmp_path, "other", 3, STATE)
    assert load_checkpoint(tmp_path, "key") is None
    save_checkpoint(tmp_path, "key", 1, STATE)
    assert names(tmp_path) == files(1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("pair")
    for step in (1, 2):
        save_checkpoint(folder, "key", step, STATE | {"step": step})
    return folder


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """Checkpoints of steps 1 and 2, each by two writers."""
    folder = tmp_path_factory.mktemp("cut")
    for step in (1, 2):
        save_cut(folder, step, writers=2)
    return folder


def save_cut(folder, step, writers, rows=3):
    whole = torch.arange(4.0 * rows).view(rows, 4)
    share = -(-rows // writers)
    parts = []
    for writer in range(writers):
        start = min(rows, writer * share)
        piece = Piece(whole[start : start + share], 0, start, rows)
        parts.append(write_part(folder, step, STATE | {"step": step, "w": piece}, writer, writers))
    return commit_checkpoint(folder, "key", step, parts, Times())


def damage(folder, dice, flips, cuts, copy):
    """Flip one bit, or cut, each file of step 2 in turn; all must be refused."""
    folder = shutil.copytree(folder, copy)
    newest = sorted(folder.glob("checkpoint-00000002.*"))
    for trial in range(flips + cuts):
        file = newest[trial % len(newest)]
        good = file.read_bytes()
        place = dice.randrange(len(good))
        if trial < flips:
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


def test_every_flip_and_cut_is_refused_and_the_checkpoint_before_it_taken(pair, cut, tmp_path):
    """400 random flips of one bit and 80 cuts, evenly over all files of a checkpoint."""
    damage(pair, random.Random(1), 200, 40, tmp_path / "one")
    damage(cut, random.Random(2), 200, 40, tmp_path / "two")


def test_a_file_more_or_less_of_several_is_refused(cut, tmp_path):
    for number in (0, 1):
        folder = shutil.copytree(cut, tmp_path / str(number))
        (folder / f"checkpoint-00000002.{number}-of-2.safetensors").unlink()
        assert step_of(folder) == 1
    folder = shutil.copytree(cut, tmp_path / "swapped")
    first, second = sorted(folder.glob("checkpoint-00000002.*-of-2*"))
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    assert step_of(folder) == 1


@given(writers=st.integers(1, 5), rows=st.integers(1, 7))
def test_what_many_wrote_is_put_together_again(tmp_path_factory, writers, rows):
    """Some writers have no row at all."""
    folder = tmp_path_factory.mktemp("many")
    saved = save_cut(folder, 1, writers, rows)
    state = load_checkpoint(folder, "key").state
    assert len(saved.parts) == writers
    assert torch.equal(state["w"], torch.arange(4.0 * rows).view(rows, 4))
    assert torch.equal(state["model"]["w"], STATE["model"]["w"])


def test_equal_states_are_equal_bytes_and_every_kind_of_value_comes_back(tmp_path):
    state = {
        "rng": torch.arange(9, dtype=torch.uint8),
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "optimizers": [{"state": {0: {"step": torch.tensor(2.0)}}, "lr": 0.1, "foreach": None}],
        "text": "ä",
        "empty": [[], {}, [math.inf, -math.inf, 1e-310]],
        "nan": math.nan,
    }
    first = save_checkpoint(tmp_path / "a", "key", 1, state)
    assert save_checkpoint(tmp_path / "b", "key", 1, state).sha256 == first.sha256
    found = load_checkpoint(tmp_path / "a", "key").state
    for name in ("rng", "scalar", "half"):
        assert found[name].dtype == state[name].dtype
        assert torch.equal(found[name], state[name])
    assert found["optimizers"][0]["state"][0]["step"] == 2.0
    assert math.isnan(found["nan"])
    assert {k: found[k] for k in ("text", "empty")} == {k: state[k] for k in ("text", "empty")}


def test_files_without_a_manifest_were_never_a_checkpoint(cut, tmp_path):
    folder = shutil.copytree(cut, tmp_path / "run")
    (folder / "checkpoint-00000002.json").unlink()
    assert step_of(folder) == 1
    write_part(folder, 4, STATE)  # of a writer that is ahead, or was killed
    save_cut(folder, 3, writers=2)
    assert not list(folder.glob("checkpoint-00000002*"))
    assert list(folder.glob("checkpoint-00000004*"))
    prune_checkpoints(folder, "key", keep=2)
    assert not list(folder.glob("checkpoint-00000004*"))


def test_files_that_changed_places_are_refused(pair, tmp_path):
    folder = shutil.copytree(pair, tmp_path / "run")
    shutil.copy(folder / files(1)[0], folder / files(2)[0])
    assert step_of(folder) == 1
    (folder / "checkpoint-00000001.json").replace(folder / "checkpoint-00000009.json")
    with pytest.raises(CorruptError, match="no good checkpoint is left"):
        load_checkpoint(folder, "key")


def test_no_good_checkpoint_is_an_error_that_says_what_is_wrong_with_each(pair, tmp_path):
    folder = shutil.copytree(pair, tmp_path / "run")
    (folder / files(2)[0]).unlink()
    (folder / "checkpoint-00000001.json").write_text("{")
    with pytest.raises(CorruptError, match=r"00000002.0-of-1.*is missing.*01.json: not a check"):
        load_checkpoint(folder, "key")


def test_a_save_that_is_cut_off_anywhere_leaves_the_last_one(cut, tmp_path, monkeypatch):
    """Kill it before, between and after the files of two writers, and before the manifest."""

    class Killed(BaseException):
        pass

    from shards import atomic

    for survived in range(3):
        folder = shutil.copytree(cut, tmp_path / str(survived))
        calls = []

        def fsync(_, survived=survived, calls=calls):
            if len(calls) == survived:
                raise Killed
            calls.append(1)

        with monkeypatch.context() as patched:
            patched.setattr(atomic.os, "fsync", fsync)
            with pytest.raises(Killed):
                save_cut(folder, 3, writers=2)
        assert step_of(folder) == 2


def test_a_full_disk_is_an_error_that_says_what_to_do(pair, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    folder = shutil.copytree(pair, tmp_path / "run")
    part = write_part(folder, 3, STATE)
    monkeypatch.setattr("shards.atomic.os.fsync", full)
    for write in (
        lambda: write_part(folder, 3, STATE),
        lambda: commit_checkpoint(folder, "key", 3, [part], Times()),
    ):
        with pytest.raises(TrainingError, match=r"of step 3: No space left .* make room"):
            write()
    assert step_of(folder) == 2
