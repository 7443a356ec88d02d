import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import RecipeError
from trainer.config import StudyConfig
from trainer.study_arms import Catalogue, draw_words, mixed, open_arms

ARMS = {"raw": "split == 'train'", "clean": "split == 'train' and dropped == ''"}
BUDGET = 2000


def ids(view):
    return {document.doc_id for document in view}


def test_plain_arms_are_the_views_of_their_selections(dataset):
    arms = open_arms(dataset, StudyConfig(arms=ARMS), BUDGET)
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
    arms = open_arms(dataset, study, BUDGET)
    assert list(arms) == study.arm_names
    random, clean = arms["random-clean"], arms["clean"]
    assert abs(random.tokens - clean.tokens) <= 20  # half of the longest document
    assert ids(random) < ids(arms["raw"])
    # Drawn without a look at the columns: about as many clean ones as the control has.
    share = len(ids(random) & ids(clean)) / random.documents
    assert share == pytest.approx(clean.documents / arms["raw"].documents, abs=0.1)


def test_repeat_arms_hold_a_share_of_the_budget_and_lie_in_each_other(dataset):
    arms = open_arms(dataset, StudyConfig(arms=ARMS, repeats=[2, 4, 8], repeat_of="clean"), BUDGET)
    views = [arms[f"repeat-{times}"] for times in (2, 4, 8)]
    for view, times in zip(views, (2, 4, 8), strict=True):
        assert abs(view.tokens - BUDGET / times) <= 20
    assert ids(views[2]) < ids(views[1]) < ids(views[0]) < ids(arms["clean"])


@pytest.mark.parametrize("wanted", [None, 500])
def test_the_unique_budget_cuts_all_arms_to_one_size(dataset, wanted):
    study = StudyConfig(arms=ARMS, budget="unique", unique_tokens=wanted)
    arms = open_arms(dataset, study, BUDGET)
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
    for view in open_arms(dataset, study, BUDGET).values():
        assert dataset.select(view.expression).documents >= view.documents


def test_the_draw_is_fixed(dataset):
    """Finished runs are found by their documents: another draw would run them all again."""
    view = open_arms(dataset, StudyConfig(arms=ARMS, repeats=[8]), BUDGET)["repeat-8"]
    assert view.selection_hash == "45882fc404a6f9065c2181ccc73e7a9a"


@given(st.data())
def test_a_draw_comes_as_near_as_whole_documents_allow(dataset, data):
    documents = Catalogue(dataset)
    mask = documents.select(ARMS["clean"], "x")
    wanted = data.draw(st.integers(1, documents.tokens(mask)))
    drawn = documents.draw(mask, wanted, "x")
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
