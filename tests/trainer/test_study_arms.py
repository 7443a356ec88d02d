import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shards.dataset import TokenDataset
from shards.errors import RecipeError
from tests.trainer.conftest import EOS, counting_table, write_dataset
from trainer.study_arms import draw_words, open_arms, with_random
from trainer.study_catalogue import Catalogue, mixed
from trainer.study_config import Band, Cells, Curriculum, Mix, Probes, StudyConfig

ARMS = {"raw": "split == 'train'", "clean": "split == 'train' and dropped == ''"}
BUDGET = 2000


def ids(view):
    return {document.doc_id for document in view}


def views(dataset, study, seed=1):
    return {name: arm.view for name, arm in open_arms(dataset, study, BUDGET)[seed].items()}


def test_plain_arms_are_the_views_of_their_selections(dataset):
    arms = views(dataset, StudyConfig(arms=ARMS))
    for name, view in arms.items():
        same = dataset.select(ARMS[name])
        assert (view.selection_hash, view.documents, view.tokens, view.bytes) == (
            same.selection_hash,
            same.documents,
            same.tokens,
            same.bytes,
        )


def test_a_random_arm_is_as_large_as_what_it_stands_beside_and_drawn_from_the_control(dataset):
    study = StudyConfig(arms=ARMS, random_like=["clean"])
    arms = views(dataset, study)
    assert list(arms) == study.arm_names
    random, clean = arms["random-clean"], arms["clean"]
    assert abs(random.tokens - clean.tokens) <= 20  # half of the longest document
    assert ids(random) < ids(arms["raw"])
    # Drawn without a look at the columns: about as many clean ones as the control has.
    share = len(ids(random) & ids(clean)) / random.documents
    assert share == pytest.approx(clean.documents / arms["raw"].documents, abs=0.1)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, ["clean"]),
        ({"control": "clean"}, []),  # the other arm holds more
        ({"arms": {"raw": "True", "clean": "dropped == ''", "same": "True"}}, ["clean"]),
        ({"arms": ARMS, "bands": {"few": Band(signal="bytes", high=0.1)}}, ["few"]),
        ({"arms": ARMS | {"twin": ARMS["clean"]}}, ["clean"]),  # of equal ones the first
        ({"arms": ARMS | {"random-clean": "bytes > 8"}}, []),  # the name is taken
        ({"budget": "unique"}, []),
        ({"random_like": []}, []),
        ({"arms": ARMS | {"less": "bytes > 12"}, "random_like": ["clean"]}, ["clean"]),
        ({"mixtures": {"mix": Mix(weights={"one": 1, "two": 20})}}, ["mix"]),
        ({"mixtures": {"mix": Mix(weights={"one": 1})}}, ["clean"]),  # it holds more
        ({"arms": {"raw": ARMS["raw"]}, "probes": Probes(count=1)}, ["probe-01"]),
        ({"arms": {"raw": ARMS["raw"]}, "repeats": [2]}, []),  # small on purpose
    ],
)
def test_the_smallest_arm_has_a_random_subset_unless_the_recipe_says_which(
    dataset, changes, wanted
):
    study = StudyConfig(**{"arms": ARMS} | changes)
    found = with_random(dataset, study, BUDGET)
    assert found.random_like == wanted
    assert found == msgspec.structs.replace(study, random_like=wanted)
    assert with_random(dataset, found, BUDGET) is found
    names = list(open_arms(dataset, found, BUDGET)[1])
    assert names == found.arm_names
    assert [name for name in names if name in study.arm_names] == study.arm_names


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(weight=st.floats(0.02, 50), budget=st.integers(100, 4000), seed=st.integers(1, 3))
def test_a_random_subset_of_a_mixture_has_as_many_different_tokens(dataset, weight, budget, seed):
    """What is in the mixture repeatedly counts once, so the subset is read as often as that."""
    mixes = {"mix": Mix(weights={"one": 1, "two": weight})}
    study = StudyConfig(arms=ARMS, mixtures=mixes, random_like=["mix"])
    arms = open_arms(dataset, study, budget, [seed])[seed]
    assert list(arms) == study.arm_names
    assert abs(arms["random-mix"].tokens - arms["mix"].tokens) <= 20  # half the longest document
    assert arms["random-mix"].copies.max() == 1
    assert ids(arms["random-mix"].view) <= ids(arms["raw"].view)
    assert draw_words(study)["random-mix"] == "as many tokens as mix"


def test_repeat_arms_hold_a_share_of_the_budget_and_lie_in_each_other(dataset):
    arms = views(dataset, StudyConfig(arms=ARMS, repeats=[2, 4, 8], repeat_of="clean"))
    found = [arms[f"repeat-{times}"] for times in (2, 4, 8)]
    for view, times in zip(found, (2, 4, 8), strict=True):
        assert abs(view.tokens - BUDGET / times) <= 20
    assert ids(found[2]) < ids(found[1]) < ids(found[0]) < ids(arms["clean"])


@pytest.mark.parametrize("wanted", [None, 500])
def test_the_unique_budget_cuts_all_arms_to_one_size(dataset, wanted):
    study = StudyConfig(arms=ARMS, budget="unique", unique_tokens=wanted)
    arms = views(dataset, study)
    goal = wanted or dataset.select(ARMS["clean"]).tokens
    assert all(abs(view.tokens - goal) <= 20 for view in arms.values())
    cut = f"{wanted} tokens" if wanted else "the smallest arm's tokens"
    assert set(draw_words(study).values()) == {cut}


def test_every_arm_says_what_is_taken_of_a_selection_that_can_be_evaluated(dataset):
    study = StudyConfig(arms=ARMS, random_like=["clean"], repeats=[4])
    assert draw_words(study) == {
        "raw": "all",
        "clean": "all",
        "random-clean": "as many tokens as clean",
        "repeat-4": "1/4 of the budget",
    }
    for view in views(dataset, study).values():
        assert dataset.select(view.expression).documents >= view.documents


def test_each_seed_has_a_draw_of_its_own_and_the_same_plain_arms(dataset):
    study = StudyConfig(arms=ARMS, random_like=["clean"], seeds=[1, 2, 3])
    opened = open_arms(dataset, study, BUDGET)
    drawn = [opened[seed]["random-clean"].view for seed in study.seeds]
    assert len({view.selection_hash for view in drawn}) == 3
    assert len(ids(drawn[0]) & ids(drawn[1])) < 0.7 * drawn[0].documents
    assert len({opened[seed]["raw"].view.selection_hash for seed in study.seeds}) == 1
    alone = open_arms(dataset, study, BUDGET, [2])[2]["random-clean"].view
    assert alone.selection_hash == drawn[1].selection_hash


@pytest.fixture
def signal_dataset(tmp_path):
    """Documents with a signal that rises with their number."""
    table = counting_table(120)
    rising = pa.array(np.arange(120.0), pa.float32())
    return TokenDataset.open(write_dataset(tmp_path, table.append_column("signal", rising)))


def numbers(view):
    return [int(n) for n in np.concatenate([np.arange(f, f + n) for f, n in rows(view)])]


def rows(view):
    return zip(view._row.tolist(), view._rows.tolist(), strict=True)


def test_bands_share_nothing_leave_nothing_out_and_are_cut_by_tokens(signal_dataset):
    bands = {
        "low": Band(signal="signal", high=0.5),
        "high": Band(signal="signal / 2", low=0.5),
        "middle": Band(signal="signal", low=0.25, high=0.75, of="clean"),
    }
    arms = views(signal_dataset, StudyConfig(arms=ARMS, bands=bands))
    low, high, raw = (set(numbers(arms[name])) for name in ("low", "high", "raw"))
    assert low | high == raw
    assert max(low) < min(high)
    assert abs(arms["low"].tokens - arms["high"].tokens) <= 80
    assert set(numbers(arms["middle"])) < set(numbers(arms["clean"]))


@pytest.mark.parametrize("cells", [Cells(), Cells(signal="signal", bins=3)])
def test_a_mixture_has_its_shares_and_repeats_what_is_scarce(signal_dataset, cells):
    mixes = {"mix": Mix(weights={"one": 1, "two": 3})}
    study = StudyConfig(arms=ARMS, mixtures=mixes, cells=cells)
    arm = open_arms(signal_dataset, study, BUDGET)[1]["mix"]
    assert arm.view.tokens == pytest.approx(BUDGET, abs=40)
    catalogue = Catalogue(signal_dataset)
    tokens = catalogue.lengths * arm.copies
    assert tokens[catalogue.sources == 1].sum() == pytest.approx(0.75 * BUDGET, abs=40)
    assert arm.copies.max() >= 2
    assert arm.tokens < arm.view.tokens
    assert sum(arm.shares.values()) == pytest.approx(1)
    assert arm.view.bytes == int((catalogue.bytes * arm.copies).sum())


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(weight=st.floats(0.05, 20), budget=st.integers(100, 4000))
def test_a_mixture_holds_what_its_scarcest_cell_allows_and_never_less_than_the_budget(
    signal_dataset, weight, budget
):
    study = StudyConfig(arms=ARMS, mixtures={"mix": Mix(weights={"one": 1, "two": weight})})
    arm = open_arms(signal_dataset, study, budget, [1])[1]["mix"]
    catalogue = Catalogue(signal_dataset)
    raw = catalogue.select(ARMS["raw"], "raw")
    share = np.array([1, weight]) / (1 + weight)
    there = np.bincount(catalogue.sources[raw], catalogue.lengths[raw])
    room = (there / share).min()
    held = np.bincount(catalogue.sources, catalogue.lengths * arm.copies)
    assert held == pytest.approx(share * max(room, budget), abs=41)  # a document of each
    if room >= budget:
        assert arm.copies.max() == 1


@pytest.mark.parametrize("weights", [{"one": 1, "one/1": 1}, {"one/1": 1, "one": 0}])
def test_cells_of_a_mixture_do_not_overlap(signal_dataset, weights):
    """Whichever came second would have replaced the other's documents."""
    study = StudyConfig(
        arms=ARMS, mixtures={"m": Mix(weights=weights)}, cells=Cells(signal="signal", bins=3)
    )
    with pytest.raises(RecipeError, match=r"mixtures\.m: documents of .* a source or its bins"):
        open_arms(signal_dataset, study, BUDGET)


def test_probes_are_mixtures_at_random_by_source_and_bin(signal_dataset):
    cells = Cells(signal="signal", bins=4)
    study = StudyConfig(arms=ARMS, cells=cells, probes=Probes(count=3, concentration=2))
    arms = open_arms(signal_dataset, study, BUDGET)[1]
    shares = [arms[f"probe-{n:02}"].shares for n in (1, 2, 3)]
    assert shares[0] != shares[1] != shares[2]
    assert set(shares[0]) <= {f"{s}/{b}" for s in ("one", "two") for b in range(1, 5)}
    assert set(arms["raw"].shares) == {f"{s}/{b}" for s in ("one", "two") for b in range(1, 5)}
    again = open_arms(signal_dataset, study, BUDGET)[1]
    assert all(again[name].view.selection_hash == arms[name].view.selection_hash for name in arms)


def test_a_curriculum_is_read_from_easy_to_hard_and_its_twin_in_any_order(signal_dataset):
    courses = {
        "easy": Curriculum(signal="signal", stages=4),
        "hard": Curriculum(signal="signal", stages=4, descending=True),
    }
    study = StudyConfig(arms=ARMS, curricula=courses)
    arms = open_arms(signal_dataset, study, 10**6)[1]
    easy, twin = arms["easy"], arms["shuffled-easy"]
    assert (easy.copies == twin.copies).all()
    assert numbers(easy.view) == sorted(numbers(easy.view))
    assert numbers(arms["hard"].view) == numbers(easy.view)[::-1]
    hashes = {arm.view.selection_hash for arm in arms.values()}
    assert len(hashes) == len(arms) - 2  # both twins hold what raw holds
    T, samples = 8, -(-(easy.view.tokens - 1) // 8)
    places = easy.view.places(np.arange(2 * samples), samples, 5)
    for epoch in places.reshape(2, -1):
        assert sorted(epoch.tolist()) == list(range(samples))
        quarter = -(-samples // 4)
        assert all(epoch[i] // quarter == i // quarter for i in range(samples))
    assert places[:samples].tolist() != places[samples:].tolist()
    out = np.zeros((samples, T + 1), np.int64)
    lengths, full = easy.view.gather_samples(np.arange(samples), samples, 5, out)
    assert not full
    stream = easy.view.tokens_at(0, easy.view.tokens)
    for row, place, length in zip(out, places, lengths, strict=False):
        assert row[:length].tolist() == stream[place * T : place * T + length].tolist()
        assert (row[length:] == EOS).all()
    assert len(open_arms(signal_dataset, study, 500)[1]["easy"].view.document_offsets()) > 2
    assert open_arms(signal_dataset, study, 500)[1]["easy"].view.tokens <= 500


def test_the_draw_is_fixed(dataset):
    """Finished runs are found by their documents: another draw would run them all again."""
    view = views(dataset, StudyConfig(arms=ARMS, repeats=[8]))["repeat-8"]
    assert view.selection_hash == "54287f5bf8a526fe818204cb38d98004"


@given(st.data())
def test_a_draw_comes_as_near_as_whole_documents_allow(dataset, data):
    documents = Catalogue(dataset)
    mask = documents.select(ARMS["clean"], "x")
    wanted = data.draw(st.integers(1, documents.tokens(mask)))
    drawn = documents.draw(mask, wanted, "x", data.draw(st.integers(0, 9)))
    assert not (drawn & ~mask).any()
    assert drawn.any()
    assert abs(documents.tokens(drawn) - wanted) <= documents.lengths.max()


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, min_size=1))
def test_the_order_of_draws_has_no_collisions(values):
    assert len(np.unique(mixed(np.array(values, np.uint64)))) == len(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"arms": ARMS | {"bad": "zstd_bp < 4"}},
            r"^study\.arms\.bad: selection 'zstd_bp < 4': unknown column 'zstd_bp'; did you mean"
            " 'zstd_bpb'",
        ),
        ({"arms": ARMS | {"bad": "split == "}}, r"^study\.arms\.bad: .*not an expression"),
        (
            {"arms": ARMS | {"none": "dropped == 'x'"}},
            r"^study\.arms\.none = \"dropped == 'x'\" selects no document of .*tokens",
        ),
        (
            {"bands": {"b": Band(signal="zstd_bp")}},
            r"^study\.bands\.b\.signal: signal 'zstd_bp': unknown column",
        ),
        ({"bands": {"b": Band(signal="3 + 4")}}, "names no column"),
        ({"bands": {"b": Band(signal="bytes", low=0.4999, high=0.5)}}, r"bands\.b: no document"),
        ({"mixtures": {"m": Mix(weights={"on": 1})}}, r"'on' is no cell; did you mean 'one'"),
        ({"mixtures": {"m": Mix(weights={"one": 0})}}, "no cell has a weight above 0"),
        (
            {"curricula": {"c": Curriculum(signal="bytes")}, "budget_tokens": 2},
            r"curricula\.c: of \d+ documents of arm raw .* longer than the budget of 2 tokens",
        ),
        (
            {"mixtures": {"m": Mix(weights={"two": 1})}, "budget_tokens": 10**8},
            r"would read \d+ times; at most 1000",
        ),
        ({"random_like": ["raw"], "control": "clean"}, r"random_like = 'raw': arm clean has \d+"),
        ({"repeats": [2], "budget_tokens": 10**6}, r"repeats = 2: arm raw has \d+ tokens"),
        ({"budget": "unique", "unique_tokens": 9999}, r"budget = 'unique': arm \w+ has \d+ tok"),
    ],
)
def test_errors_name_the_arm_and_what_is_wrong(dataset, changes, message):
    changes = {"arms": ARMS} | changes
    budget = changes.pop("budget_tokens", BUDGET)
    with pytest.raises(RecipeError, match=message):
        open_arms(dataset, StudyConfig(**changes), budget)
