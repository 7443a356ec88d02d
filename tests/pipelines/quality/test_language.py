import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.quality import (
    SignalsConfig,
    check_signals,
    compute_signals,
    definitions,
    known_signals,
    language,
    signal_fields,
)
from pipelines.quality.language import PIECE_BYTES, compute, definition, sample
from shards.errors import PlatformError
from shards.text import flat

GERMAN = "Der Hund läuft durch den Wald und sucht seinen Herrn. "
FRENCH = "Le chien court dans la forêt et cherche son maître, qui est parti. "
CONFIG = SignalsConfig(language="fasttext")


def languages(*texts):
    found = compute(*flat(pa.array(texts, pa.large_string())))
    return found["lang"].tolist(), found["lang_confidence"].tolist()


def test_languages_by_example():
    texts = (GERMAN, FRENCH, "Собака бежит через лес.", "犬は森の中を走っています。", "", " \n")
    found, confidence = languages(*texts)
    assert found == ["de", "fr", "ru", "ja", "und", "und"]
    assert all(value > 0.5 for value in confidence[:4])
    assert confidence[4:] == [0, 0]


@pytest.mark.parametrize("cut", ["\n", "\0", "</s>", "\r\n", "\t"])
def test_what_ends_a_text_to_fasttext_does_not_end_it_here(cut):
    assert languages(cut + GERMAN) == languages(" " + GERMAN)


def test_the_beginning_alone_does_not_decide():
    menu = "Home About Contact Sign in Search "
    assert len(menu * 5) < PIECE_BYTES
    assert languages(menu * 5 + GERMAN * 100)[0] == ["de"]


@given(st.text(st.sampled_from("aé日🙂 \n"), max_size=1000), st.integers(1, 4))
def test_a_sample_is_whole_characters_of_three_pieces(text, times):
    raw = (text * times).encode()
    found = sample(memoryview(raw))
    assert len(found.encode()) <= 3 * PIECE_BYTES + 2
    assert set(found) <= set(text) | {" "}
    if len(raw) <= 3 * PIECE_BYTES:
        assert found == raw.decode().replace("\n", " ").strip()


@settings(max_examples=30)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_a_document_has_the_same_language_in_any_batch(texts):
    codes, confidence = languages(*texts)
    assert [languages(text) for text in texts] == [
        ([code], [value]) for code, value in zip(codes, confidence, strict=True)
    ]
    assert all(0 <= value <= 1 for value in confidence)


def test_it_is_two_columns_where_the_recipe_asks():
    data, offsets = flat(pa.array([GERMAN], pa.large_string()))
    found = compute_signals(data, offsets, CONFIG)
    assert list(found) == list(known_signals(CONFIG)) == [f.name for f in signal_fields(CONFIG)]
    assert pa.array(found["lang"]).type == pa.string()
    assert found["lang_confidence"].dtype == np.float32
    assert definitions(CONFIG)["language"].startswith("lid.176-v1 (8f3472cfe8738a7b, fasttext-")
    assert "lang" not in known_signals(SignalsConfig())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("find_spec", lambda _: None, r"pip install 'assay-corpus\[lang\]'"),
        ("MODEL_SHA256", "00", "lid.176.ftz: sha256 8f3472.*expected 00"),
    ],
)
def test_without_its_model_the_recipe_is_refused(monkeypatch, name, value, message):
    monkeypatch.setattr(language, name, value)
    language._model.cache_clear()
    with pytest.raises(PlatformError, match=message):
        check_signals(CONFIG)
    monkeypatch.undo()
    language._model.cache_clear()
    assert definition() == definitions(CONFIG)["language"]


class FakeEldc:
    """Has the functions of eldc that are used, and knows one language."""

    def init(self):
        self.known = ("de", 0.94177)

    def set_scores(self, n):
        assert n == 1

    def detect_details(self, text):
        code, score = self.known
        found = "Hund" in text
        return SimpleNamespace(
            language=code if found else "und", scores={code: score} if found else {}
        )


def test_eldc_is_another_detector_with_the_same_columns(monkeypatch):
    monkeypatch.setitem(sys.modules, "eldc", FakeEldc())
    monkeypatch.setattr(language, "version", lambda name: {"eldc": "0.4.0"}[name])
    language._eldc.cache_clear()
    config = SignalsConfig(language="eldc")
    check_signals(config)
    found = compute_signals(*flat(pa.array([GERMAN, "", "12"], pa.large_string())), config)
    language._eldc.cache_clear()
    assert list(found) == list(known_signals(config)) == list(known_signals(CONFIG))
    assert found["lang"].tolist() == ["de", "und", "und"]
    assert found["lang_confidence"].tolist() == [np.float32(0.942), 0, 0]
    assert definitions(config)["language"] == "eldc-v1 (eldc 0.4.0)"


def test_without_eldc_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "eldc", None)
    language._eldc.cache_clear()
    with pytest.raises(PlatformError, match="pip install eldc"):
        check_signals(SignalsConfig(language="eldc"))
