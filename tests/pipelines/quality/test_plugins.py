import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from pipelines.curate.schema import dropped_schema, fragment_schema, kept_schema, spans_schema
from pipelines.quality import (
    SignalsConfig,
    check_signals,
    compute_signals,
    definitions,
    known_signals,
    plugins,
)
from shards.errors import PlatformError, RecipeError
from shards.text import flat


def count_marks(data, offsets):
    ends = np.cumsum(np.concatenate(([0], data == ord("!"))))
    return {"marks": ends[offsets[1:]] - ends[offsets[:-1]]}


PLUGIN = SimpleNamespace(SIGNALS={"marks": (pa.int64(), "'!'")}, VERSION="v7", compute=count_marks)


@pytest.fixture
def install(monkeypatch):
    """Return a function that makes an object the one installed plug-in, named `marks`."""
    module = "tests_fake_plugin"

    def install_(plugin):
        monkeypatch.setitem(__import__("sys").modules, module, SimpleNamespace(it=plugin))
        point = EntryPoint("marks", f"{module}:it", plugins.GROUP)
        monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
        plugins.load.cache_clear()

    yield install_
    plugins.load.cache_clear()


def test_a_plugin_adds_its_columns_and_its_version(install):
    install(PLUGIN)
    config = SignalsConfig(plugins=["marks"])
    check_signals(config)
    data, offsets = flat(pa.array(["a!b!", "", "!"], pa.large_string()))
    assert compute_signals(data, offsets, config)["marks"].tolist() == [2, 0, 1]
    assert list(known_signals(config))[-1] == "marks"
    assert definitions(config)["plugin marks"] == "v7"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compute": lambda data, offsets: {}}, "returned \\[\\] and not \\['marks'\\]"),
        ({"compute": lambda data, offsets: {"marks": np.zeros(9)}}, r"shape \(9,\) for 1 doc"),
        ({"compute": lambda data, offsets: [1]}, "returned list and not"),
        ({"compute": lambda data, offsets: 1 // 0}, "'marks': compute raised ZeroDivisionError"),
        (
            {"compute": lambda data, offsets: sys.exit(3)},
            r"'marks': compute raised SystemExit\(3\)",
        ),
        ({"compute": lambda data, offsets: {"marks": ["x"]}}, "'marks' has the type <U1, not int"),
        ({"compute": lambda data, offsets: {"marks": [float("nan")]}}, "is nan for document 0"),
        ({"compute": lambda data, offsets: {"marks": [0.5]}}, "is 0.5 for document 0 of 1.*int64"),
        ({"compute": lambda data, offsets: {"marks": [2**63]}}, "is 9223372036854775808 for doc"),
    ],
)
def test_what_a_plugin_returns_is_checked(install, changes, message):
    install(SimpleNamespace(**{**vars(PLUGIN), **changes}))
    with pytest.raises(PlatformError, match=message):
        plugins.compute("marks", np.zeros(1, np.uint8), np.array([0, 1]))


def test_plugins_that_cannot_be_used_are_refused(install):
    install(SimpleNamespace(VERSION="v1"))
    with pytest.raises(PlatformError, match="'marks' has no SIGNALS, compute"):
        check_signals(SignalsConfig(plugins=["marks"]))
    with pytest.raises(RecipeError, match="no plug-in 'mark' is installed; did you mean 'marks'"):
        check_signals(SignalsConfig(plugins=["mark"]))
    install(SimpleNamespace(**{**vars(PLUGIN), "SIGNALS": {"chars": (pa.int64(), "")}}))
    with pytest.raises(RecipeError, match="'marks': the column 'chars' exists"):
        check_signals(SignalsConfig(plugins=["marks"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SIGNALS": {"marks": (pa.string(), "")}}, "'marks' has the type string; int64 and float"),
        ({"SIGNALS": {"my marks": (pa.int64(), "")}}, "'my marks': a column's name is an ASCII"),
        ({"SIGNALS": {"if": (pa.int64(), "")}}, "'if': a column's name"),
        ({"SIGNALS": {"größe": (pa.int64(), "")}}, "'größe': a column's name"),
        ({"SIGNALS": {"marks": pa.int64()}}, "must be a pair of type and meaning"),
        ({"SIGNALS": ["marks"]}, "SIGNALS must map"),
        ({"VERSION": 7}, "VERSION = 7 is no string"),
    ],
)
def test_columns_that_can_be_none_are_refused_before_the_job(install, changes, message):
    install(SimpleNamespace(**{**vars(PLUGIN), **changes}))
    with pytest.raises(PlatformError, match=f"'marks'.*{message}"):
        check_signals(SignalsConfig(plugins=["marks"]))


def test_no_column_of_any_file_can_be_a_plugins(install):
    """A `url` of its own was accepted, and the job failed when the dataset before was gone."""
    files = [kept_schema(), dropped_schema(), spans_schema(), fragment_schema(1)]
    for name in {name for schema in files for name in schema.names}:
        install(SimpleNamespace(**{**vars(PLUGIN), "SIGNALS": {name: (pa.int64(), "")}}))
        with pytest.raises(RecipeError, match=f"'marks': the column '{name}' exists"):
            check_signals(SignalsConfig(plugins=["marks"]))
