import msgspec
import numpy as np
import pytest

from shards.errors import RecipeError, TrainingError
from shards.mixture_config import MixtureConfig, Stage
from tests.trainer.test_loop import Interrupter, Notes
from trainer.loop import train_on_ranks
from trainer.progress import Reporter
from trainer.ranks import ALONE
from trainer.records import STUDY, STUDY_TEXT, StudyRecord, read_record, read_valid
from trainer.study import (
    check_apart,
    open_arm,
    open_runs,
    open_study,
    open_valid,
    run_name,
    run_study,
)
from trainer.study_config import Curriculum, Prediction, Probes, StudyConfig, Sweep
from trainer.study_report import study_markdown

STUDY_CONFIG = StudyConfig(
    arms={
        "noise": "split == 'train' and dropped != ''",
        "clean": "split == 'train' and dropped == ''",
    },
    control="noise",
    seeds=[1, 2, 3],
    bootstrap_samples=500,
    random_like=[],
    max_overlap=1,  # all texts count up or down, so they share what they are made of
)


@pytest.fixture(scope="module")
def planted(dataset, tmp_path_factory):
    """A study with a true difference: the control reads noise, the arm what validation is like."""
    from tests.trainer.conftest import TINY

    out = tmp_path_factory.mktemp("study")
    config = msgspec.structs.replace(
        TINY, steps=60, learning_rate=0.05, embedding_learning_rate=0.05, eval_every=30
    )
    data = open_study(dataset, STUDY_CONFIG, config)
    return out, data, config, run_study(data, STUDY_CONFIG, config, out, Reporter(quiet=True))


def test_the_record_follows_from_the_runs(planted):
    out, data, _, record = planted
    assert record == read_record(out / STUDY, StudyRecord)
    assert record.tokens == 60 * 128
    for name, arm in record.arms.items():
        bits = [
            read_valid(out / run_name(name, s.seed), sha)[0]
            for s, sha in zip(arm.seeds, shas(out, name), strict=True)
        ]
        scores = [b.sum() / data.valid.bytes.sum() for b in bits]
        assert arm.bpb == pytest.approx(np.mean(scores))
        assert [s.bpb for s in arm.seeds] == scores
        assert all(seed.cpu_seconds > 0 for seed in arm.seeds)
        assert arm.tokens == record.tokens
        assert arm.epochs == pytest.approx(record.tokens / arm.available_tokens)
        assert arm.unique_tokens <= arm.available_tokens
        assert arm.baselines_all.bigram <= arm.baselines.bigram + 0.05
    assert record.valid.zstd_bpb == pytest.approx(4)
    assert record.parameters > 0 < record.flops


def shas(out, name):
    return [
        msgspec.json.decode((out / run_name(name, seed) / "run.json").read_bytes())["valid_sha256"]
        for seed in STUDY_CONFIG.seeds
    ]


def test_a_planted_difference_is_measured_but_the_gate_decides(planted):
    """Noise teaches nothing beyond pairs, so the control fails the gate, whatever the interval."""
    record = planted[3]
    clean = record.arms["clean"]
    assert clean.delta < -0.2
    assert clean.ci_low < clean.delta < clean.ci_high < 0
    assert record.arms["noise"].delta is None
    assert record.arms["noise"].verdict == "control"
    assert not record.arms["noise"].beats_baselines
    assert not record.gate_passed
    assert record.verdict == clean.verdict == "INCONCLUSIVE"
    assert "noise-1" in record.sentence
    assert record.sentence.startswith("INCONCLUSIVE")


def test_an_arm_that_fails_the_gate_takes_no_other_with_it(planted, dataset):
    """The same runs with `clean` as the control, beside an arm of nearly the same documents."""
    out, _, config, _ = planted
    arms = STUDY_CONFIG.arms | {"long": "split == 'train' and dropped == '' and bytes > 8"}
    study = msgspec.structs.replace(
        STUDY_CONFIG, arms=arms, control="clean", contrasts=[("noise", "long")]
    )
    data = open_study(dataset, study, config)
    record = run_study(data, study, config, out, Reporter(quiet=True))
    assert record.arms["noise"].verdict == "INCONCLUSIVE"
    assert record.arms["long"].verdict in {"arm better", "arm worse", "no difference seen"}
    assert record.arms["long"].p_value >= record.arms["noise"].p_value  # Holm over both, not one
    assert record.gate_passed
    assert record.verdict == "conclusive"
    assert "so nothing is said of noise, and the other arms are judged" in record.gate
    assert "INCONCLUSIVE: noise (does not beat the unigram and bigram models" in record.sentence
    assert record.tokens_needed is not None
    assert record.worth is None or "noise" not in record.worth.arms
    (contrast,) = record.contrasts
    assert contrast.verdict == "INCONCLUSIVE"
    both = record.arms["noise"].delta - record.arms["long"].delta
    assert contrast.delta == pytest.approx(both)


def test_the_random_subset_that_nobody_asked_for_runs_nothing_else_again(planted, dataset):
    """A study from before there was one: its runs are taken as they are."""
    out, _, config, before = planted
    arms = STUDY_CONFIG.arms | {"raw": "split == 'train'"}
    old = msgspec.structs.replace(STUDY_CONFIG, arms=arms, control="raw")
    run_study(open_study(dataset, old, config), old, config, out, Reporter(quiet=True))
    study = msgspec.structs.replace(old, random_like=None)
    data = open_study(dataset, study, config)
    smallest = min(STUDY_CONFIG.arms, key=lambda name: data.arms[name].tokens)
    assert data.study.random_like == [smallest]
    jobs = open_runs(data, data.study, config, out, ())
    assert [job.name for job in jobs] == [f"random-{smallest}-{seed}" for seed in (1, 2, 3)]
    named = msgspec.structs.replace(config, seed=2)
    view = open_arm(dataset, study, named, f"random-{smallest}")
    assert view.selection_hash == data.by_seed[2][f"random-{smallest}"].view.selection_hash
    assert before.study.random_like == []


def test_a_second_call_runs_nothing_and_gives_the_same_record(planted):
    out, data, config, record = planted
    reporter = Interrupter(0)
    assert run_study(data, STUDY_CONFIG, config, out, reporter) == record
    assert reporter.seen == []


def test_a_stopped_study_goes_on_and_ends_the_same(dataset, tiny, tmp_path):
    data = open_study(dataset, STUDY_CONFIG, tiny())
    whole = run_study(data, STUDY_CONFIG, tiny(), tmp_path / "a", Reporter(quiet=True))
    with pytest.raises(KeyboardInterrupt):
        run_study(data, STUDY_CONFIG, tiny(), tmp_path / "b", Interrupter(7))
    rest = run_study(data, STUDY_CONFIG, tiny(), tmp_path / "b", Reporter(quiet=True))
    assert without_speed(rest) == without_speed(whole)


def test_a_study_that_replaces_another_leaves_no_record_of_runs_that_are_gone(
    dataset, tiny, tmp_path, capsys
):
    data = open_study(dataset, STUDY_CONFIG, tiny())
    run_study(data, STUDY_CONFIG, tiny(), tmp_path, Reporter(quiet=True))
    assert "warning" not in capsys.readouterr().err
    other = tiny(learning_rate=0.03)
    with pytest.raises(KeyboardInterrupt):
        run_study(data, STUDY_CONFIG, other, tmp_path, Interrupter(2))
    assert "train.learning_rate = " in capsys.readouterr().err
    assert not (tmp_path / STUDY).exists()
    assert not (tmp_path / STUDY_TEXT).exists()
    assert read_record(tmp_path / f"before-{STUDY}", StudyRecord).train == tiny()
    record = run_study(data, STUDY_CONFIG, other, tmp_path, Reporter(quiet=True))
    assert record == read_record(tmp_path / STUDY, StudyRecord)


@pytest.mark.parametrize("tuned", [False, True])
def test_a_run_that_assay_train_put_aside_is_found_again(dataset, tiny, tmp_path, capsys, tuned):
    """With a seed and the folder of another run: neither is lost, and nothing is trained again."""
    study = msgspec.structs.replace(STUDY_CONFIG, sweep=Sweep(learning_rates=[0.02], seeds=[7]))
    config = tiny(learning_rate=0.02)
    data = open_study(dataset, study, config)
    record = run_study(data, study, config, tmp_path, Reporter(quiet=True))
    folder = tmp_path / ("sweep01-7" if tuned else "noise-1")
    train_on_ranks(
        data.by_seed[1]["noise"].view,
        data.valid,
        msgspec.structs.replace(config, seed=9),
        folder,
        Reporter(quiet=True),
        ALONE,
        keep_others=True,
    )
    capsys.readouterr()
    again = Notes(0)
    assert run_study(data, study, config, tmp_path, again) == record
    assert again.seen == []
    said = capsys.readouterr().err
    assert f"{folder} held another run (seed = 9 there, {7 if tuned else 1} here)" in said
    assert "warning" not in said  # nothing is replaced
    assert not (tmp_path / f"before-{STUDY}").exists()


def without_speed(record):
    plain = msgspec.to_builtins(record)
    for arm in plain["arms"].values():
        for seed in arm["seeds"]:
            del seed["tokens_per_s"], seed["cpu_seconds"]
    return plain


def test_arms_that_follow_from_others_are_trained_and_compared(dataset, tiny, tmp_path):
    study = msgspec.structs.replace(
        STUDY_CONFIG, seeds=[1, 2], random_like=["clean"], repeats=[2], repeat_of="clean"
    )
    config = tiny(steps=24)
    data = open_study(dataset, study, config)
    record = run_study(data, study, config, tmp_path, Reporter(quiet=True))
    assert list(record.arms) == ["noise", "clean", "random-clean", "repeat-2"]
    repeated = record.arms["repeat-2"]
    assert repeated.epochs == pytest.approx(2, abs=0.1)
    assert repeated.baselines_all.bigram == pytest.approx(repeated.baselines.bigram, abs=0.05)
    for name, arm in record.arms.items():
        assert (
            data.arms[name].selection_hash == open_arm(dataset, study, config, name).selection_hash
        )
        if name != "noise":
            assert arm.ci_low <= arm.delta <= arm.ci_high
            assert 0.05 / 3 <= arm.level <= 0.05
    assert (tmp_path / STUDY_TEXT).read_text() == study_markdown(record)
    clean, random = record.arms["clean"], record.arms["random-clean"]
    assert clean.random_delta == pytest.approx(clean.bpb - random.bpb)
    assert clean.random_ci[0] <= clean.random_delta <= clean.random_ci[1]
    assert random.random_delta is None
    assert record.tokens_needed[0] > 0
    assert "raise train.tokens by " in record.sentence
    assert record.arms["noise"].effective_data_multiplier == 1


def test_a_study_of_all_that_can_be_asked_and_its_second_call(dataset, tiny, tmp_path):
    """A sweep, an order, mixtures, repeats and a prediction, in one study of a few steps."""
    study = StudyConfig(
        arms={"raw": "split == 'train'"},
        max_overlap=1,
        curricula={"short": Curriculum(signal="bytes", stages=3)},
        repeats=[4],
        probes=Probes(count=2),
        seeds=[1, 2],
        bootstrap_samples=200,
        sweep=Sweep(learning_rates=[0.01, 0.05], seeds=[9]),
        prediction=Prediction(
            arm="short", delta=0.0, low=-9, high=9, seeds=[3], dataset_id=dataset.dataset_id
        ),
    )
    config = tiny(steps=10, eval_every=1, decay=0.2)
    data = open_study(dataset, study, config)
    assert data.study.random_like == ["probe-02"]  # the data decides
    study = data.study
    record = run_study(data, study, config, tmp_path, Reporter(quiet=True))
    assert len(record.sweep.points) == 2
    assert (tmp_path / "sweep02-9").is_dir()
    assert record.train.learning_rate == record.sweep.points[record.sweep.chosen].learning_rate
    ratio = config.embedding_learning_rate / config.learning_rate
    assert record.train.embedding_learning_rate == ratio * record.train.learning_rate
    code = record.arms["short"].prequential
    assert code.against == "shuffled-short"
    assert code.read == 1
    assert code.interval[0] <= code.delta <= code.interval[1]
    assert code.delta == pytest.approx(code.bpb - record.arms["shuffled-short"].prequential.bpb)
    assert record.arms["shuffled-short"].prequential.against is None
    assert record.arms["raw"].prequential.read < 1
    assert record.repeats.arms == ["raw", "repeat-4"]
    assert record.worth.arms == ["raw", "random-probe-02", "probe-01", "probe-02"]
    assert [cell.cell for cell in record.worth.cells] == ["one", "two"]
    assert record.arms["short"].verdict == "INCONCLUSIVE"
    assert record.prediction.held is None
    assert record.prediction.same_dataset
    raw = record.arms["raw"]
    assert raw.ladder["zstd"] == pytest.approx(4)
    assert raw.ladder["unigram"] < raw.ladder["fixed"]
    assert sum(raw.shares.values()) == pytest.approx(1)
    assert set(record.arms["short"].sources) == set(raw.by_source)
    page = (tmp_path / STUDY_TEXT).read_text()
    for words in (
        "## Code length of identical bytes", "## Repeated data", "## Worth per byte by source",
        "## Sweep on the control arm", "## Compression ladder", "the prediction was not tested",
    ):  # fmt: skip
        assert words in page
    again = Interrupter(0)
    assert run_study(data, study, config, tmp_path, again) == record
    assert again.seen == []
    for name in study.arm_names:
        for seed in study.seeds:
            alone = open_arm(dataset, study, msgspec.structs.replace(config, seed=seed), name)
            assert alone.selection_hash == data.by_seed[seed][name].view.selection_hash


def test_an_order_of_documents_needs_the_stream(dataset, tiny):
    study = msgspec.structs.replace(STUDY_CONFIG, curricula={"c": Curriculum(signal="bytes")})
    with pytest.raises(RecipeError, match=r"study\.curricula with train\.packing"):
        open_study(dataset, study, tiny(packing="best-fit"))
    mixed = MixtureConfig(stages=[Stage(weights={"one": 1.0})])
    study = msgspec.structs.replace(STUDY_CONFIG, probes=Probes(count=1))
    with pytest.raises(RecipeError, match=r"study\.probes with train\.mixture: .*would be lost"):
        open_study(dataset, study, tiny(mixture=mixed))
    with pytest.raises(RecipeError, match=r"study\.probes with train\.mixture"):
        open_arm(dataset, study, tiny(mixture=mixed), "probe-01")


def test_the_validation_of_a_process_of_its_own_is_that_of_the_study(dataset, tiny):
    study = msgspec.structs.replace(STUDY_CONFIG, max_overlap=0.9)
    opened = open_study(dataset, study, tiny())
    assert opened.overlap.removed > 0
    assert open_valid(dataset, study, tiny()).digest() == opened.valid.digest()


def test_the_arm_of_a_process_of_its_own_must_be_one(dataset, tiny):
    with pytest.raises(RecipeError, match=r"arm 'clear': not one of .* did you mean 'clean'"):
        open_arm(dataset, STUDY_CONFIG, tiny(), "clear")


def test_other_arms_have_no_say_in_a_plain_one(dataset, tiny):
    arms = STUDY_CONFIG.arms | {"broken": "nonsense == 1"}
    study = msgspec.structs.replace(STUDY_CONFIG, arms=arms, random_like=["broken"])
    view = open_arm(dataset, study, tiny(), "clean")
    assert view.selection_hash == dataset.select(arms["clean"]).selection_hash
    with pytest.raises(RecipeError, match=r"^study\.arms\.broken"):
        open_arm(dataset, study, tiny(), "random-broken")


@pytest.mark.parametrize(
    ("valid", "changes", "error", "message"),
    [
        ("split == 'test'", {}, RecipeError, r"selects no document of .*split\.valid_fraction = 0"),
        ("splt == 'x'", {}, RecipeError, r"^study\.valid: .*column 'splt'; did you mean 'split'"),
        ("split == 'valid'", {"eval_tokens": 8}, TrainingError, "at least 2; raise it"),
        ("source == 'tow'", {}, RecipeError, r"^study\.valid: .*no source of .*mean 'two'"),
    ],
)
def test_a_validation_that_says_nothing_is_refused(dataset, tiny, valid, changes, error, message):
    with pytest.raises(error, match=message):
        open_study(dataset, msgspec.structs.replace(STUDY_CONFIG, valid=valid), tiny(**changes))


def test_sources_can_be_named_in_arms_and_validation(dataset, tiny):
    """So a study needs no split: some sources are held out."""
    arms = {"raw": "source != 'two'", "clean": "source in ['one'] and dropped == ''"}
    study = StudyConfig(arms=arms, valid="source == 'two'", seeds=[1, 2], max_overlap=1)
    data = open_study(dataset, study, tiny(eval_tokens=10**6))
    assert {data.valid.sources[i] for i in data.valid.source} == {"two"}
    assert len(data.valid) == dataset.select("source_id == 1").documents
    assert data.arms["raw"].selection_hash == dataset.select("source_id == 0").selection_hash
    narrowed = data.arms["raw"].narrow("source == 'one' and bytes > 20")
    assert narrowed.documents == dataset.select("source_id == 0 and bytes > 20").documents


def test_an_arm_that_touches_the_validation_is_refused(dataset, tiny):
    arms = {"raw": "True", "clean": "split == 'train' and dropped == ''"}
    with pytest.raises(RecipeError, match=r"study\.arms\.raw = 'True' shares 100 documents"):
        open_study(dataset, StudyConfig(arms=arms), tiny())
    check_apart(dataset, "split == 'train'", "split == 'valid'", "x")
