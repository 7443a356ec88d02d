"""A context in a job graph is an address."""

import pickle

import pytest

from pipelines.curate.plan import InputFile, Plan
from pipelines.curate.scan import ScanContext
from pipelines.readers import Range
from pipelines.recipe import curate_recipe
from shards.errors import CorruptError

MANY = 20_000


@pytest.fixture
def context(tmp_path):
    names = [f"corpus/part-{number:06d}.jsonl" for number in range(MANY)]
    plan = Plan(
        [InputFile(name, 9, place, f"{place:032x}", 0) for place, name in enumerate(names)],
        [Range(name, "jsonl", "none", 0, 9, bytes=9) for name in names],
        list(range(MANY)),
        7,
        "scan",
        "stage",
    )
    recipe = curate_recipe({"input": {"paths": names[:1]}, "filters": {"presets": ["gopher"]}})
    return ScanContext(plan, recipe, 21, 6, str(tmp_path), "", stamps={names[0]: (9, 1, 2)})


def test_a_large_plan_is_an_address_and_comes_back_whole(context):
    packed = pickle.dumps(context)
    assert len(packed) < 500
    assert pickle.loads(packed) == context


def test_a_context_that_was_changed_is_refused(context, tmp_path):
    packed = pickle.dumps(context)
    (path,) = (tmp_path / "contexts").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(CorruptError, match="delete the _work folder"):
        pickle.loads(packed)
