import os
import pkgutil
import shutil
import signal

import fsspec
import msgspec
import pytest
from click.testing import CliRunner

from shards.errors import AssayError, DatasetError, RecipeError
from tests.trainer.test_loop import without_facts
from trainer.cli import study_command, train_command
from trainer.events import Event, read_events
from trainer.progress import Reporter
from trainer.records import RunRecord, read_record
from trainer.signals import PREEMPTED

RECIPE = """
[train]
sequence_length = 16
batch_size = 4
steps = 3
eval_tokens = 200
threads = 1
model = { dim = 16, layers = 1, heads = 2 }

[study]
seeds = [1, 2]
bootstrap_samples = 100
"""


@pytest.fixture
def call(folder, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)

    def run(command, *arguments):
        fixed = [str(recipe), "--data", str(folder), "--out", str(tmp_path / "out")]
        return CliRunner().invoke(command, [*fixed, *arguments], catch_exceptions=True)

    return run


def test_train_prints_one_line_and_skips_when_done(call, tmp_path):
    first = call(train_command, "--quiet", "--arm", "curated", "--seed", "5")
    assert first.exit_code == 0
    assert "bits per byte after 192 tokens" in first.stdout
    assert msgspec.json.decode((tmp_path / "out/run.json").read_bytes())["seed"] == 5
    assert call(train_command, "--quiet", "--arm", "curated", "--seed", "5").stdout == first.stdout


def test_a_recipe_with_a_study_validates_as_the_study_does(call, tmp_path):
    """Documents that arms may read are taken out, with --arm or without."""

    def valid_hash(*arguments):
        assert call(train_command, "--quiet", *arguments).exit_code == 0
        return msgspec.json.decode((tmp_path / "out/run.json").read_bytes())["valid_hash"]

    plain = valid_hash("--select", "split == 'train'")
    assert valid_hash() == valid_hash("--arm", "raw") != plain
    assert valid_hash("--set", "study.max_overlap=1") == plain
    (tmp_path / "recipe.toml").write_text(RECIPE[: RECIPE.index("[study]")])
    assert valid_hash() == plain


def test_trains_on_a_dataset_at_a_url_with_a_mixture(call, folder, tmp_path):
    fsspec.filesystem("memory").put(str(folder), "memory://cli", recursive=True)
    stages = "train.mixture.stages=[{ weights = { one = 1, two = 3 } }]"
    far = ("--data", "memory://cli", "--cache", str(tmp_path / "cache"), "--cache-mb", "16")
    assert call(train_command, "--quiet", *far, "--set", stages).exit_code == 0
    record = msgspec.json.decode((tmp_path / "out/run.json").read_bytes())
    assert record["facts"]["data"] == "memory://cli"
    assert record["config"]["mixture"]["stages"][0]["weights"] == {"one": 1.0, "two": 3.0}
    near = call(train_command, "--quiet", "--set", stages)  # the same data, so the same run
    assert near.exit_code == 0
    assert msgspec.json.decode((tmp_path / "out/run.json").read_bytes()) == record
    unknown = call(train_command, "--set", stages.replace("two", "tow"), "--dry-run")
    assert "has no source 'tow'; did you mean 'two'" in str(unknown.exception)


def test_dry_run_says_the_size_and_writes_nothing(call, tmp_path):
    for command, words in ((train_command, "3 steps of 64 tokens"), (study_command, "6 runs")):
        result = call(command, "--dry-run")
        assert result.exit_code == 0
        assert words in result.stdout
        assert "parameters" in result.stdout
        assert "FLOP" in result.stdout
        assert "(h:mm:ss) at " in result.stdout
        assert "memory per rank (1 rank): about " in result.stdout
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_what_each_of_many_ranks_needs(call):
    many = ("--dry-run", "--set=train.parallel=fsdp2", "--set=train.microbatches=4")
    said = call(train_command, *many, "--ranks", "4").stdout
    assert "memory per rank (4 ranks, fsdp2): about " in said
    assert "tokens/s with 4 devices like this one" in said
    with pytest.raises(RecipeError, match="not divisible by the 3 ranks"):
        raise call(train_command, *many, "--ranks", "3").exception


def test_a_dry_run_of_the_recipe_only_opens_no_data(call, folder, tmp_path):
    stale = shutil.copytree(folder, tmp_path / "stale")
    (stale / "manifest.json").write_text("of another time")
    for command in (train_command, study_command):
        both = ("--data", str(stale), "--dry-run")
        assert isinstance(call(command, *both).exception, DatasetError)
        result = call(command, *both, "--recipe-only")
        assert result.exit_code == 0
        assert "stale is not read" in result.stdout
        wrong = call(command, *both, "--recipe-only", "--set", "study.arms.raw=a ==")
        assert isinstance(wrong.exception, RecipeError)
    assert "--recipe-only" not in call(train_command, "--help").stdout


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
@pytest.mark.parametrize("command", [train_command, study_command])
def test_a_scheduler_that_stops_a_run_gets_its_own_exit_code(call, monkeypatch, name, command):
    step = Reporter.step

    def stop(self, number, loss, tokens_per_s):
        step(self, number, loss, tokens_per_s)
        if number == 2:
            os.kill(os.getpid(), getattr(signal, name))

    jobs = ("--jobs", "1") if command is study_command else ()
    with monkeypatch.context() as patched:
        patched.setattr(Reporter, "step", stop)
        result = call(command, *jobs)
    assert result.exit_code == PREEMPTED == 75
    assert f"{name} at step 2 of 3" in result.stderr.replace("\n", " ")
    result = call(command, *jobs)
    assert result.exit_code == 0
    assert "goes on from step 2" in result.stderr


MOMENTS = {
    "reading": ("trainer.data.read_documents", "before a step was taken"),
    "beginning": ("trainer.run.build_optimizers", "before a step was taken"),
    "validating": ("trainer.run.evaluate", "in the validation after the last of 3 steps"),
    "finishing": ("trainer.loop.fit_and_score", "after the last of 3 steps"),
    "recording": ("trainer.loop.write_record", "after the last of 3 steps"),
}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stop_at_any_moment_has_that_exit_code_and_loses_nothing(
    call, tmp_path, monkeypatch, name, moment
):
    """Signals come in rows: torchrun passes on what its ranks got, too."""
    place, words = MOMENTS[moment]
    plain = ("--select", "split == 'train'", "--quiet", "--set=train.eval_every=0")
    honest = pkgutil.resolve_name(place)

    def stopped(*arguments, **options):
        if moment != "validating" or counted.append(1) or len(counted) == 2:
            for number in (name, "SIGTERM", name):
                os.kill(os.getpid(), getattr(signal, number))
        return honest(*arguments, **options)

    counted = []
    before = [signal.getsignal(getattr(signal, n)) for n in ("SIGTERM", "SIGUSR1", "SIGINT")]
    with monkeypatch.context() as patched:
        patched.setattr(place, stopped)
        result = call(train_command, *plain)
    assert result.exit_code == PREEMPTED, result.stderr
    assert f"stopped: {name} {words}" in result.stderr.replace("\n", " ").replace("train: ", "")
    after = [signal.getsignal(getattr(signal, n)) for n in ("SIGTERM", "SIGUSR1", "SIGINT")]
    assert after == before
    step = 0 if "before" in words else 3
    assert read_events(tmp_path / "out") == [Event(step, "stopped", name)]
    assert not (tmp_path / "out/run.json").exists()
    assert call(train_command, *plain).exit_code == 0
    assert read_events(tmp_path / "out") == []
    stopped_run = read_record(tmp_path / "out/run.json", RunRecord)
    shutil.rmtree(tmp_path / "out")
    assert call(train_command, *plain).exit_code == 0
    whole = read_record(tmp_path / "out/run.json", RunRecord)
    assert without_facts(stopped_run) == without_facts(whole)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_when_all_is_done_changes_nothing(call, monkeypatch, name):
    def late(record):
        os.kill(os.getpid(), getattr(signal, name))
        return "done"

    monkeypatch.setattr("trainer.show.run_line", late)
    result = call(train_command, "--quiet")
    assert (result.exit_code, result.stdout) == (0, "done\n")


def test_a_stop_touches_no_folder_that_is_not_a_runs(call, tmp_path, monkeypatch):
    def stopped(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    monkeypatch.setattr("trainer.data.open_tokens", stopped)
    assert call(train_command, "--dry-run").exit_code == PREEMPTED
    assert call(train_command).exit_code == PREEMPTED
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_study_prints_its_sentence_or_json(call):
    result = call(study_command, "--quiet", "--jobs", "1")
    assert result.exit_code == 0
    assert result.stdout.startswith("INCONCLUSIVE")  # three steps teach nothing
    summary = msgspec.json.decode(call(study_command, "--json", "--quiet", "--jobs", "1").stdout)
    assert summary["sentence"] + "\n" == result.stdout
    arm = summary["arms"]["curated"]
    assert arm["ci_low"] <= arm["delta"] <= arm["ci_high"]
    assert arm["verdict"] == "INCONCLUSIVE"
    assert summary["arms"]["raw"]["delta"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", __file__], "cannot be a run's folder .*test_cli.py: File exists"),
        (["--select", "True"], "shares 100 documents"),
        (["--select", "x", "--arm", "raw"], "give one of the two"),
        (["--arm", "row"], "not one of the study's; did you mean 'raw'"),
        (["--set", "train.step=3"], "did you mean 'steps'"),
        (["--set", "study.valid='nonsense =='"], "nonsense"),
        (["--set", "study.valid=\"split == 'test'\""], "selects no document"),
    ],
)
def test_bad_requests_are_errors_that_say_what(call, arguments, message):
    result = call(train_command, *arguments)
    assert isinstance(result.exception, AssayError)
    with pytest.raises(AssayError, match=message):
        raise result.exception


def test_runs_side_by_side_give_the_same_record(call, tmp_path):
    assert call(study_command, "--quiet", "--jobs", "2").exit_code == 0
    records = []
    for _ in range(2):
        record = msgspec.json.decode((tmp_path / "out/study.json").read_bytes())
        for arm in record["arms"].values():
            for seed in arm["seeds"]:
                assert seed.pop("tokens_per_s") > 0
                assert seed.pop("cpu_seconds") > 0
        records.append(record)
        shutil.rmtree(tmp_path / "out")
        assert call(study_command, "--quiet", "--jobs", "1").exit_code == 0
    assert records[0] == records[1]
