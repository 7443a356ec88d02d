import msgspec
import pytest
from click.testing import CliRunner

from tests.trainer.records import study_record
from trainer.records import STUDY, write_record
from trainer.show import study_summary
from trainer.study_cli import show_command
from trainer.study_config import Band, Curriculum, Mix, Probes, StudyConfig
from trainer.study_controls import caution, random_words, without_random
from trainer.study_report import answer_sentence, study_markdown

CALLED = (-0.05, -0.08, -0.02, "arm better")
WARNING = (
    "Beside curated there is no random subset of equal size: less data alone might explain the"
    " difference (study.random_like)."
)


def study(**changes):
    """A study of a control and arms of half its tokens; `random-curated` may be one of them."""
    names = ["curated", *(f"random-{name}" for name in changes.get("random_like") or [])]
    record = study_record(dict.fromkeys(names, CALLED))
    arms = {
        name: arm if name == "raw" else msgspec.structs.replace(arm, available_tokens=400_000)
        for name, arm in record.arms.items()
    }
    selections = {"raw": "True", "curated": "dropped == ''"}
    config = StudyConfig(arms=selections, seeds=[1, 2], **changes)
    return msgspec.structs.replace(record, arms=arms, study=config)


def shown(folder, record, *options):
    write_record(folder / STUDY, record)
    return CliRunner().invoke(show_command, [str(folder), *options], catch_exceptions=False).stdout


def test_a_smaller_arm_without_a_random_subset_is_named_everywhere(tmp_path):
    record = study()
    assert without_random(record.arms, record.study) == ["curated"]
    assert answer_sentence(record.arms, record.study).endswith(f" bits. {WARNING}")
    assert study_summary(record)["without_random"] == ["curated"]
    row = "| random subset of equal size | none for curated: less data alone might explain"
    assert row in study_markdown(record)
    assert shown(tmp_path, record).endswith(f"{WARNING}\n")  # its sentence does not have it
    said = msgspec.structs.replace(record, sentence=f"Better. {WARNING}")
    assert shown(tmp_path, said).count("no random subset") == 1
    assert msgspec.json.decode(shown(tmp_path, record, "--json"))["without_random"] == ["curated"]


@pytest.mark.parametrize("changes", [{"random_like": ["curated"]}, {"budget": "unique"}])
def test_nothing_is_said_where_no_arm_lacks_it(tmp_path, changes):
    record = study(**changes)
    assert without_random(record.arms, record.study) == []
    assert "no random subset" not in answer_sentence(record.arms, record.study)
    assert "no random subset" not in shown(tmp_path, record)
    assert "less data alone" not in study_markdown(record)
    assert study_summary(record)["without_random"] == []


def test_an_arm_as_large_as_the_control_needs_none_and_a_band_does():
    record = study(bands={"dense": Band(signal="x", low=0.5)})
    raw, curated = record.arms["raw"], record.arms["curated"]
    arms = {"raw": raw, "curated": raw, "dense": curated}
    assert without_random(arms, record.study) == ["dense"]


def test_a_mixture_or_probe_that_holds_less_needs_one_and_others_do_not():
    """A repeat arm is small on purpose, and a curriculum has its twin; the words say so."""
    record = study()
    raw, small = record.arms["raw"], record.arms["curated"]
    others = {
        "repeats": [2], "curricula": {"easy": Curriculum(signal="x")},
        "mixtures": {"mix": Mix(weights={"a": 1})}, "probes": Probes(count=9),
    }  # fmt: skip
    config = StudyConfig(arms={"raw": "True"}, seeds=[1, 2], **others)
    arms = {name: raw if name == "raw" else small for name in config.arm_names}
    assert without_random(arms, config) == ["mix", *config.probe_names]
    assert (
        "none for mix, probe-01, probe-02, probe-03, probe-04, probe-05 and 4 more: less data"
        in (random_words(arms, config))
    )
    whole = arms | dict.fromkeys(["mix", *config.probe_names], raw)
    assert random_words(whole, config) == (
        "none is needed: no arm is smaller than the control but for repeat arms, small on purpose"
        " and curricula, which have twins"
    )
    given = StudyConfig(arms={"raw": "True"}, seeds=[1, 2], random_like=["mix"], **others)
    arms["random-mix"] = small
    assert caution(arms, given).endswith("and 3 more there is no random subset of equal size;"
                                         " random-mix, no larger, shows what less data alone"
                                         " does.")  # fmt: skip


def test_a_smaller_random_subset_speaks_for_larger_arms():
    record = study(random_like=["curated"])
    arms = record.arms | {
        "near": msgspec.structs.replace(record.arms["curated"], available_tokens=600_000)
    }
    selections = record.study.arms | {"near": "True"}
    config = msgspec.structs.replace(record.study, arms=selections)
    end = "random-curated, no larger, shows what less data alone does"
    assert caution(arms, config) == (f"Beside near there is no random subset of equal size; {end}.")
    assert random_words(arms, config) == f"random-curated; none for near: {end}"
    tiny = msgspec.structs.replace(record.arms["curated"], available_tokens=100)
    both = msgspec.structs.replace(config, arms=selections | {"tiny": "True"})
    said = f"Beside near there is no random subset of equal size; {end}. Beside tiny there is no"
    assert caution(arms | {"tiny": tiny}, both).startswith(said)
    words = random_words(arms | {"tiny": tiny}, both)
    assert words.startswith(f"random-curated; none for near: {end}; none for tiny: less data alone")
    # The other way round it shows too little.
    config = msgspec.structs.replace(config, random_like=["near"])
    assert random_words(arms, config).endswith("none for curated: less data alone might explain"
                                               " the difference")  # fmt: skip


def test_a_subset_of_one_size_speaks_though_a_draw_is_cut_at_documents():
    """And one that failed the gate says nothing, whatever its size."""
    record = study(random_like=["curated"])
    config = msgspec.structs.replace(record.study, arms=record.study.arms | {"near": "True"})
    subset = record.arms["random-curated"]
    for size, said in ((397_000, ""), (395_000, "less data alone might explain")):
        near = msgspec.structs.replace(subset, available_tokens=size)
        words = random_words(record.arms | {"near": near}, config)
        assert said in words
        assert ("random-curated, no larger, shows" in words) == (not said)
    failed = msgspec.structs.replace(subset, beats_baselines=False)
    arms = record.arms | {"near": subset, "random-curated": failed}
    end = "and random-curated did not pass the gate: less data alone might explain the difference"
    assert random_words(arms, config) == f"random-curated; none for near, {end}"
    assert caution(arms, config).startswith(
        f"Beside near there is no random subset of equal size, {end} "
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"random_like": ["curated"]}, "random-curated"),
        ({"random_like": []}, "none for curated: less data alone might explain the difference"),
        ({"budget": "unique"}, "none is needed: every arm is cut to as many tokens, the control"
         " by the same draw"),
    ],
)  # fmt: skip
def test_the_table_says_which_subsets_there_are_and_why_there_is_none(changes, words):
    record = study(**changes)
    assert random_words(record.arms, record.study) == words
    assert f"| random subset of equal size | {words} |" in study_markdown(record)
    same = record.arms | {"curated": record.arms["raw"]}
    if not record.study.random_subsets and record.study.budget == "flops":
        assert random_words(same, record.study).startswith("none is needed: no arm is smaller")
