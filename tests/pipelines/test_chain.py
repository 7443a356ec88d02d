"""The chain of a recipe: order, folders, and stopping at the first failure."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.chain import Stage, chain, check_chain, check_tables, run_chain
from shards.errors import RecipeError


def labels(table):
    return [stage.label for stage in chain("r.toml", table, "out", ())]


def test_the_tables_of_a_recipe_decide_what_is_trained():
    assert labels({"study": {}, "train": {}})[-2:] == ["study", "report"]
    assert labels({"train": {}})[-2:] == ["train", "report"]
    assert labels({}) == ["curate", "tokenizer", "tokenize", "report"]


def test_overrides_and_options_reach_every_stage_but_the_report():
    stages = chain("r.toml", {"study": {}}, "out", ("a.b=1",), ("--quiet",))
    assert all(stage.arguments[-3:] == ("--set", "a.b=1", "--quiet") for stage in stages[:-1])
    assert stages[-1].arguments == ("report", "out", "--quiet")
    assert stages[2].arguments[1:8] == (
        "r.toml", "--data", "out/curated", "--tokenizer", "out/tokenizer", "--out", "out/tokens",
    )  # fmt: skip


def test_workers_reach_the_beam_jobs_only():
    stages = chain("r.toml", {"study": {}}, "out", (), (), 3)
    with_workers = [stage.label for stage in stages if "--workers" in stage.arguments]
    assert with_workers == ["curate", "tokenize"]


def test_a_mistake_in_the_last_table_is_found_before_anything_runs(tmp_path, capfd):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[study]\nseed = [1, 2]\n")
    out = str(tmp_path / "out")
    stages = chain(str(recipe), {"study": {}}, out, ())
    assert check_chain(stages[1:-1]) == 2
    assert "unknown key study.seed; did you mean 'seeds'" in capfd.readouterr().err
    recipe.write_text("[study]\nseeds = [1, 2]\n")
    assert check_chain(stages[1:-1]) == 0
    assert not (tmp_path / "out").exists()


def test_a_dataset_that_the_run_would_make_again_is_not_looked_at(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[study]\nseeds = [1, 2]\n")
    tokens = tmp_path / "out" / "tokens"
    tokens.mkdir(parents=True)
    (tokens / "manifest.json").write_text("damaged")
    stages = chain(str(recipe), {"study": {}}, str(tmp_path / "out"), ())
    assert check_chain([stage for stage in stages if stage.label == "study"]) == 0


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"study": {}}, r"valid_fraction = 0, but \[study\]"),
        ({"train": {}, "split": {"valid_fraction": 0}}, r"valid_fraction = 0, but \[train\]"),
        ({"tokenize": {"documents": "all"}, "output": {"dropped_text": False}}, "dropped_text"),
    ],
)
def test_tables_that_do_not_fit_each_other_are_found(table, words):
    with pytest.raises(RecipeError, match=words):
        check_tables(table)
    check_tables({**table, "split": {"valid_fraction": 0.1}, "output": {}})


def test_a_validation_by_source_needs_no_split():
    check_tables({"study": {"valid": "source == 'held-out' and bytes < 9"}})
    for valid in ("split == 'valid'", 'dropped == "" and split=="valid"'):
        with pytest.raises(RecipeError, match=r"or say with study\.valid which documents"):
            check_tables({"study": {"valid": valid}, "split": {"valid_fraction": 0}})


def test_a_failing_stage_stops_the_chain_with_its_exit_code(tmp_path):
    stages = [
        Stage("first", ("inspect", str(tmp_path))),
        Stage("never", ("corpus", "--out", str(tmp_path / "corpus"))),
    ]
    assert run_chain(stages) == 1
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_a_stage_ends_with_its_chain(tmp_path, how):
    """A stage that went on alone would meet itself when the chain is run again."""
    program = """
import sys
from pipelines import chain
stage = chain.Stage("corpus", ("corpus", "--out", sys.argv[1]))
sys.exit(chain.run_chain([stage]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "corpus")], stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not (stages := children(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    # Before it has a handler it would end without a word, however long it takes to start.
    while not all(map(handles_sigterm, stages)) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 143)
    assert b"stopped" in said  # the stage's own word, or the chain's
    while any(map(is_running, stages)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, stages))


def test_a_chain_that_is_told_to_stop_leaves_no_stage_behind(tmp_path):
    """Its stages look at the recipe first, each in a process; here the first waits for ever."""
    recipe = tmp_path / "r.toml"
    os.mkfifo(recipe)
    command = [sys.executable, "-m", "pipelines", "study", str(recipe), "--out", str(tmp_path)]
    chain = subprocess.Popen(command, stderr=subprocess.PIPE)
    while chain.poll() is None and not was_read(
        recipe, b"[split]\nvalid_fraction = 0.1\n[study]\n"
    ):
        time.sleep(0.01)
    while chain.poll() is None and not (stages := children(chain.pid)):
        time.sleep(0.01)
    chain.terminate()
    chain.communicate(timeout=60)
    assert chain.returncode == 143
    deadline = time.monotonic() + 20
    while any(map(is_running, stages)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_running, stages))


def was_read(fifo, data):
    """Give a named pipe's reader its data, if there is one."""
    try:
        writing = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    with os.fdopen(writing, "wb") as file:
        file.write(data)
    return True


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter if it ends while it is read
        return False


def handles_sigterm(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = (line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_events_go_to_stdout_and_the_stages_write_theirs(capfd):
    stages = chain("r.toml", {}, "out", (), events=True)
    assert stages[0].arguments[-2:] == ("--json", "--quiet")
    assert "--json" not in stages[1].arguments
    assert run_chain([Stage("version", ("--version",)), Stage("bad", ("no-such",))], events=True)
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    events = [json.loads(line) for line in lines]
    assert [(event["command"], event["state"]) for event in events] == [
        ("version", "started"),
        ("version", "finished"),
        ("bad", "started"),
        ("bad", "finished"),
    ]
    assert [events[1]["exit_code"], events[3]["exit_code"]] == [0, 2]
