import signal
from pathlib import Path

import msgspec
import pytest

from tests.trainer.test_loop import Interrupter, Killed, Notes, without_facts
from trainer.aside import is_aside, make_room
from trainer.begun import BEGUN, Begun
from trainer.data import read_documents
from trainer.folder import LOCK
from trainer.loop import recalled, run_key, train_on_ranks
from trainer.progress import Reporter
from trainer.ranks import ALONE
from trainer.records import read_record, write_record
from trainer.signals import Stopped


@pytest.fixture
def run(dataset, tmp_path):
    valid = read_documents(dataset, "split == 'valid' and dropped == ''", 400)
    view = dataset.select("split == 'train'")

    def run_in(name, config, reporter=None, keep_others=True):
        reporter = reporter or Reporter(quiet=True)
        return train_on_ranks(
            view, valid, config, tmp_path / name, reporter, ALONE, keep_others=keep_others
        )

    run_in.key = lambda config: run_key(view, valid, config)
    return run_in


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_mistyped_seed_loses_nothing(run, tiny, tmp_path, capsys):
    whole = run("whole", tiny())
    with pytest.raises(Stopped):
        run("a", tiny(), Interrupter(8, signal.SIGTERM))
    capsys.readouterr()
    other = run("a", tiny(seed=9, steps=6), Reporter(quiet=True))
    assert other.seed == 9
    said = capsys.readouterr().err  # --quiet or not
    assert "held another run (steps = 12 there, 6 here, seed = 1 there, 9 here)" in said
    assert str(tmp_path / "a" / "replaced-") in said
    rest = Notes(0)
    assert without_facts(run("a", tiny(), rest)) == without_facts(whole)
    assert rest.seen == [9, 10, 11, 12]
    assert "held another run (steps = 6 there" in capsys.readouterr().err  # put aside in turn
    again = Notes(0)
    assert run("a", tiny(seed=9, steps=6), again) == other  # and is finished when it comes back
    assert again.seen == []


@pytest.mark.parametrize("stopped", [False, True])
def test_a_run_of_a_study_finds_what_was_put_aside(run, tiny, tmp_path, stopped):
    """A study replaces other runs, but one for which its own was put aside is put aside in turn."""
    whole = run("whole", tiny())
    if stopped:
        with pytest.raises(Stopped):
            run("a", tiny(), Interrupter(8, signal.SIGTERM))
    else:
        whole = run("a", tiny())
    mistyped = run("a", tiny(seed=9))
    rest = Notes(0)
    found = run("a", tiny(), rest, keep_others=False)
    assert (without_facts(found), rest.seen) == (
        without_facts(whole),
        [9, 10, 11, 12] if stopped else [],
    )
    folder, other = tmp_path / "a", tiny(seed=9)
    assert recalled(folder, "0" * 64, other) is None  # a run that was never here moves nothing
    assert recalled(folder, run.key(tiny()), tiny()) == found
    assert recalled(folder, run.key(other), other) == mistyped
    assert recalled(folder, run.key(other), other) == mistyped
    run("a", tiny(seed=3), keep_others=False)  # replaces seed 9
    assert recalled(folder, run.key(other), other) is None
    assert recalled(folder, run.key(tiny()), tiny()) == found


def test_what_no_run_writes_stays_where_it_is(run, tiny, tmp_path):
    folder = tmp_path / "a"
    first = run("a", tiny())
    own = ["checkpoint-export/model.safetensors", "notes.txt", "tokens/manifest.json"]
    for name in own:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    run("a", tiny(seed=9))
    (aside,) = folder.glob("replaced-*")
    (aside / "why.txt").write_text("mine")
    assert run("a", tiny()) == first
    (other,) = set(folder.glob("replaced-*")) - {aside}
    assert not set(own) & set(names(other))
    assert set(own) < set(names(folder))
    assert names(aside) == ["why.txt"]
    assert not is_aside(folder, first.run_key)
    assert is_aside(folder, run.key(tiny(seed=9)))


def test_a_run_without_a_checkpoint_is_replaced(run, tiny, tmp_path, capsys):
    with pytest.raises(OSError, match="killed"):
        run("a", tiny(), Killed(2))
    run("a", tiny(seed=2))
    assert "another run" not in capsys.readouterr().err
    assert not list((tmp_path / "a").glob("replaced-*"))


@pytest.mark.parametrize("back", [False, True])
def test_a_move_that_is_cut_off_anywhere_is_finished_by_the_next(
    run, tiny, tmp_path, monkeypatch, back
):
    """Either command may be the next one: it finds its own run whole, and the other is kept."""

    class Cut(BaseException):
        pass

    config, other = tiny(tensorboard=False), tiny(seed=9)
    run("a", config)
    (tmp_path / "a/tensorboard").mkdir()
    (tmp_path / "a/tensorboard/events").touch()
    before = [name for name in names(tmp_path / "a") if name != LOCK]
    rename = Path.rename
    folder, keys = tmp_path / "a", (run.key(config), run.key(other))
    for survived in range(len(before)):
        if back:
            make_room(folder, keys[1], other)
        left = [survived]

        def stop(path, target, left=left):
            if not left[0]:
                raise Cut
            left[0] -= 1
            return rename(path, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", stop)
            with pytest.raises(Cut):
                make_room(folder, keys[not back], config if back else other)
        if survived % 2:
            make_room(folder, keys[1], other)
            (aside,) = folder.glob("replaced-*")
            assert names(folder) == [LOCK, *(f"{aside.name}/{name}" for name in before)]
        make_room(folder, keys[0], config)
        assert [name for name in names(folder) if name != LOCK] == before


def test_another_version_is_said_and_what_decides_nothing_is_not(run, tiny, tmp_path, capsys):
    run("a", tiny(), keep_others=False)
    begun = tmp_path / "a" / BEGUN
    record = read_record(begun, Begun)
    write_record(begun, msgspec.structs.replace(record, definitions={"model": "0"}))
    make_room(tmp_path / "a", "0" * 64, tiny(keep_checkpoints=7, recompute=True))
    said = capsys.readouterr().err
    assert "another run (made by another version of Assay, which alone goes on with it):" in said


def test_other_data_is_said_too(run, tiny, tmp_path, capsys):
    run("a", tiny())
    make_room(tmp_path / "a", "0" * 64, tiny())
    assert "another run (of other data)" in capsys.readouterr().err
    changed = msgspec.structs.replace(tiny(), steps=3)
    run("b", tiny())
    (tmp_path / "b/begun.json").unlink()
    make_room(tmp_path / "b", "0" * 64, changed)
    assert "another run (of other settings or data)" in capsys.readouterr().err
