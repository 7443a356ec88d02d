from pathlib import Path

import pytest

from shards.config import decode, load_recipe
from shards.errors import RecipeError
from trainer.study_config import StudyConfig

INF = float("inf")
SWEEP = {"learning_rates": [0.01]}
TOLD = {"arm": "curated", "delta": -0.1, "low": -0.2, "high": 0.0, "seeds": [9], "dataset_id": "d"}


def study(**table):
    return decode({"study": table}, "study", StudyConfig)


def test_arms_come_in_the_order_of_the_recipe_then_what_follows_from_them():
    found = study(
        bands={"low": {"signal": "zstd_bpb", "high": 0.5}},
        mixtures={"code": {"weights": {"source": 1}}},
        curricula={"easy": {"signal": "zstd_bpb"}},
        random_like=["low", "code", "probe-02"],
        repeats=[2],
        probes={"count": 2},
        cells={"signal": "ref_bpb"},
    )
    assert found.arm_names == [
        "raw", "curated", "low", "code", "easy", "shuffled-easy", "random-low", "random-code",
        "random-probe-02", "repeat-2", "probe-01", "probe-02",
    ]  # fmt: skip
    assert found.expressions[2:] == [found.valid, "zstd_bpb", "zstd_bpb", "ref_bpb"]
    assert list(found.named_expressions)[:3] == [
        "study.arms.raw",
        "study.arms.curated",
        "study.valid",
    ]
    assert found.named_expressions["study.bands.low.signal"] == "zstd_bpb"


def test_the_example_with_all_arms_can_be_used():
    table = load_recipe(Path(__file__).parents[2] / "examples" / "study-arms.toml")
    found = decode(table, "study", StudyConfig)
    assert len(found.arm_names) == 21
    assert found.sweep.seeds == [1001]


def test_one_selection_is_enough_where_other_arms_follow_from_it():
    assert study(arms={"raw": "True"}, repeats=[2]).arm_names == ["raw", "repeat-2"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"arms": {"raw": "True"}}, r"\['raw'\] is one arm, and a study compares at least two"),
        ({"arms": {}}, 'study.arms is empty: name .* such as raw = "split =='),
        ({"bands": {"low": {"signal": "x", "low": 0.5, "high": 0.5}}}, "not below high = 0.5"),
        ({"bands": {"low": {"signal": "x", "of": "rwa"}}}, "bands.low.of = 'rwa'.*mean 'raw'"),
        ({"bands": {"raw": {"signal": "x"}}}, "two arms are named 'raw'"),
        ({"mixtures": {"a b": {"weights": {}}}}, "'a b': a name of letters"),
        (
            {"arms": {"raw": "True", 201 * "x": "True"}},
            "xxx'…: a name of 201 bytes, .* at most 200",
        ),
        ({"mixtures": {"m": {"weights": {"x": -1.0}}}}, "expected a float >= 0"),
        ({"curricula": {"c": {"signal": "x", "of": "y"}}}, "curricula.c.of = 'y'"),
        ({"probes": {"count": 1, "of": "y"}}, "probes.of = 'y'"),
        ({"sweep": SWEEP | {"seeds": [3, 4]}}, r"share \[3\] with study.seeds: the settings would"),
        ({"prediction": TOLD | {"seeds": [1, 9]}}, r"share \[1\].* seeds that it has not seen"),
        ({"prediction": TOLD | {"arm": "suggested"}}, "prediction.arm = 'suggested'"),
        ({"prediction": TOLD | {"arm": "raw"}}, "prediction.arm = 'raw': is the control"),
        ({"prediction": TOLD | {"low": 0.1}}, "low = 0.1 is above high = 0.0"),
        ({"prediction": TOLD | {"high": INF}}, "prediction.high = inf: must be a finite"),
        ({"seeds": [0, 0]}, r"seeds = \[0, 0\]: 0 repeats"),
        ({"sweep": {}}, "study.sweep: neither learning_rates nor weight_decays has a value"),
        ({"sweep": {"learning_rates": [INF]}}, "sweep.learning_rates = inf: must be a finite"),
        ({"sweep": {"weight_decays": [0.0, 0.0]}}, "weight_decays.*: 0.0 repeats"),
        ({"sweep": {"learning_rates": [0.1, 0.1]}}, "learning_rates.*: 0.1 repeats"),
        ({"sweep": SWEEP | {"seeds": [7, 7]}}, "sweep.seeds.*: 7 repeats"),
        ({"mixtures": {"m": {"weights": {"x": INF}}}}, "mixtures.m.weights.x = inf: must"),
        ({"mixtures": {"m": {"weights": {"x": -INF}}}}, "expected a float >= 0"),
        ({"probes": {"count": 1, "concentration": INF}}, "probes.concentration = inf: must"),
        ({"expected_seed_sd": float("nan")}, "expected_seed_sd"),
        ({"contrasts": [["curated", "rwa"]]}, r"contrasts: .*'rwa' is no arm .*mean 'raw'"),
        ({"contrasts": [["curated", "raw"]]}, "compared with the control 'raw' anyway"),
        ({"contrasts": [["curated", "curated"]]}, "name two different arms"),
        ({"contrasts": [["curated"]]}, "length 2"),
        (
            {"repeats": [2], "contrasts": [["curated", "repeat-2"], ["repeat-2", "curated"]]},
            r"\['repeat-2', 'curated'\]: .* each pair once",
        ),
        ({"random_like": ["curate"]}, "random_like = 'curate': no selection.*mean 'curated'"),
        ({"random_like": ["raw"]}, "random_like = 'raw': is the control"),
        ({"repeats": [2], "random_like": ["repeat-2"]}, "'repeat-2': no selection, band, mixture"),
        (
            {"curricula": {"c": {"signal": "x"}}, "random_like": ["c"]},
            "random_like = 'c': is a curriculum, whose control is its twin shuffled-c",
        ),
        ({"budget": "unique", "random_like": ["curated"]}, "would be the control again"),
        ({"budget": "unique", "probes": {"count": 1}}, "study.probes with study.budget"),
        ({"budget": "unique", "mixtures": {"m": {"weights": {"x": 1}}}}, "study.mixtures with"),
    ],
)
def test_errors_name_the_key_and_what_is_wrong(table, message):
    with pytest.raises(RecipeError, match=message):
        study(**table)
