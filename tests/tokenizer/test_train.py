import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import DatasetError, RecipeError
from tokenizer import train
from tokenizer.config import TokenizerConfig
from tokenizer.model import Tokenizer
from tokenizer.train import in_sample, train_model, training_chunks


def test_the_order_of_documents_does_not_change_a_byte(texts, config, model):
    shuffled = random.Random(1).sample(texts, len(texts))
    assert train_model(shuffled, config) == model


def test_two_threads_give_the_same_pieces(texts, config, model):
    """And the same file but for the one byte in which sentencepiece records their number."""
    threaded = train_model(texts, config, threads=2)
    assert Tokenizer(threaded).pieces_hash == Tokenizer(model).pieces_hash
    assert sum(a != b for a, b in zip(model, threaded, strict=True)) == 1


def test_learns_newlines_and_indentation(tokenizer):
    assert b"    " in tokenizer.piece_bytes
    assert b":\n" in tokenizer.piece_bytes
    assert b"\n" in tokenizer.piece_bytes


def test_special_ids_and_bytes_come_first(tokenizer):
    assert tokenizer.piece_bytes[train.UNK_ID] == b""
    assert tokenizer.piece_bytes[train.EOS_ID] == b""
    assert tokenizer.piece_bytes[2:258] == [bytes([b]) for b in range(256)]


@given(st.lists(st.text(st.sampled_from("ab\n é"), max_size=40), max_size=4))
def test_chunks_are_short_and_lose_nothing(texts):
    old, train.CHUNK_CHARACTERS = train.CHUNK_CHARACTERS, 7
    try:
        chunks = list(training_chunks(texts))
    finally:
        train.CHUNK_CHARACTERS = old
    assert "".join(chunks) == "".join(texts)
    assert all(0 < len(chunk) <= 7 for chunk in chunks)


def test_a_chunk_ends_before_its_newlines():
    text = ("x" * 1500 + "\n\n\n") * 3
    first, second, last = training_chunks([text])
    assert first == "x" * 1500
    assert second == "\n\n\n" + "x" * 1500
    assert last == "\n\n\n" + "x" * 1500 + "\n\n\n"


def test_chunks_leave_out_what_makes_the_trainer_skip_a_string():
    assert list(training_chunks(["a\0b\u2581c\u2585\u2585d"])) == ["a", "b", "c", "d"]


def test_the_sample_is_a_share_that_grows_and_a_salt_that_changes_it():
    texts = [f"document {i}" for i in range(2000)]
    small, large = ({t for t in texts if in_sample(t, share)} for share in (0.1, 0.3))
    assert small < large
    assert 150 < len(small) < 250
    assert small != {t for t in texts if in_sample(t, 0.1, "other")}
    assert all(in_sample(t, 1.0) for t in texts)


def test_a_sample_too_small_for_the_vocabulary_says_what_would_fit():
    with pytest.raises(RecipeError, match=r"vocab_size = 4096: .* at most \d+, or raise"):
        train_model(["hello world"], TokenizerConfig())


def test_a_vocabulary_too_small_for_the_characters_says_what_it_needs():
    text = "".join(chr(0x4E00 + i) for i in range(1000))
    with pytest.raises(RecipeError, match="vocab_size = 512: the sample has more characters"):
        train_model([text], TokenizerConfig(vocab_size=512, character_coverage=1.0))


@pytest.mark.parametrize("sample", [[], [""], [" \n"], ["\0"]])
def test_nothing_to_train_on_is_an_error(sample):
    with pytest.raises(DatasetError, match="no text"):
        train_model(sample, TokenizerConfig())
