"""Our encoder against sentencepiece, which is the definition of what is right."""

import io
import struct
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from shards.text import flat
from tokenizer import fast
from tokenizer.fast import FastEncoder, is_supported
from tokenizer.kernels import MAX_KEY, MAX_SYMBOLS
from tokenizer.model import Tokenizer
from tokenizer.proto import NORMAL, read_model_proto

from .test_model import AWKWARD

words = st.sampled_from(
    [
        "self",
        " the",
        "  return",
        "parser",
        "argument",
        "\n\n",
        "==",
        "…",
        "é",
        "日本",
        "\u2581",
        "\0",
    ]
)
any_text = st.text(st.characters(codec="utf-8")) | st.lists(words, max_size=30).map("".join)


def encode(encoder, slow, texts):
    ids, cuts = encoder.encode(*flat(pa.array(texts, pa.large_string())), slow._encode_pieces)
    return [ids[start:end].tolist() for start, end in pairwise(cuts)]


def expected(slow, texts):
    return [slow._encode_pieces(text.encode()).tolist() for text in texts]


def build(model):
    slow = Tokenizer(model)
    return FastEncoder.build(model, slow.eos_id, slow._encode_pieces), slow


@pytest.fixture(scope="module")
def both(model):
    return build(model)


@given(st.lists(any_text, max_size=8))
@example(AWKWARD)
@example(["ab" * MAX_SYMBOLS, "a" * MAX_SYMBOLS, "a" * (MAX_SYMBOLS + 1), "x"])
@example(["e" * n for n in range(MAX_KEY - 1, MAX_KEY + 3)])
@example(["日" * n for n in (7, 8, MAX_SYMBOLS + 1)])
def test_ids_are_those_of_sentencepiece(both, texts):
    encoder, slow = both
    for _ in range(2):  # from the cache the second time
        assert encode(encoder, slow, texts) == expected(slow, texts)


def test_real_text_through_a_cache_that_is_too_small(model, texts, monkeypatch):
    monkeypatch.setattr(fast, "_CACHE_SLOTS", 64)
    monkeypatch.setattr(fast, "_ARENA", 300)
    encoder, slow = build(model)
    assert encode(encoder, slow, texts) == expected(slow, texts)
    assert encoder._used[0] <= 33


def test_slices_and_the_end_of_the_buffer(both):
    encoder, slow = both
    array = pa.array(["left out", "argument", "", "parser argument"], pa.large_string()).slice(1)
    ids, _ = encoder.encode(*flat(array), slow._encode_pieces)
    assert ids.tolist() == [i for ids in expected(slow, array.to_pylist()) for i in ids]


def test_bytes_that_are_not_utf8_end_within_the_buffer(both):
    encoder, slow = both
    for raw in (b"\xff\xfe", b"a\xf4", b"\xe6\x97", b"\xf7\xbf\xbf\xbf", b"\x80", b"\xc3"):
        text = np.frombuffer(bytearray(raw), np.uint8)
        ids, _ = encoder.encode(text, np.array([0, len(raw)]), slow._encode_pieces)
        assert b"".join(slow.piece_bytes[i] for i in ids) == raw


def rescored(model, scores):
    """Give pieces other scores: the score of a piece is its field 2, a little-endian float."""
    data = bytearray(model)
    at = 0
    for piece in read_model_proto(model).pieces:
        encoded = piece.text.encode()
        field = b"\n%c%b\x15" % (len(encoded), encoded)
        at = data.index(field, at) + len(field) - 1
        if piece.kind == NORMAL:
            data[at + 1 : at + 5] = struct.pack("<f", scores(piece))
    return bytes(data)


@pytest.mark.parametrize(
    "scores",
    [
        lambda piece: 0.0,  # all equal: leftmost first
        lambda piece: -float(len(piece.text)),
        lambda piece: float(hash(piece.score) % 5),
    ],
)
def test_other_scores_and_equal_ones(model, texts, scores):
    encoder, slow = build(rescored(model, scores))
    assert encode(encoder, slow, texts[:60]) == expected(slow, texts[:60])


def train(texts, **options):
    sink = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=sink,
        vocab_size=420,
        model_type="bpe",
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        byte_fallback=True,
        minloglevel=3,
        **options,
    )
    return sink.getvalue()


def test_pieces_across_spaces(texts):
    encoder, slow = build(train(texts[:60], split_by_whitespace=False, split_by_number=False))
    assert encode(encoder, slow, texts[60:90]) == expected(slow, texts[60:90])


def test_characters_that_are_only_found_inside_pieces(model):
    """Rename the piece of `e`: it is then spelt with bytes alone, and still merges."""
    entry = b"\x01e\x15"
    assert model.count(entry) == 1
    encoder, slow = build(model.replace(entry, b"\x01\x06\x15"))
    texts = ["see the parser", "e", "eee return"]
    assert encode(encoder, slow, texts) == expected(slow, texts)


@pytest.mark.parametrize(
    "options", [{"user_defined_symbols": ["def", " "]}, {"control_symbols": ["q"]}]
)
def test_other_models_are_left_to_sentencepiece(texts, options):
    model = train(texts[:60], **options)
    assert not is_supported(read_model_proto(model))
    assert build(model)[0] is None


def test_a_wrong_id_switches_it_off(model, monkeypatch):
    monkeypatch.setattr(fast, "_ranks", lambda model: np.zeros(len(model.pieces), np.int32))
    assert build(model)[0] is None


def test_large_batches_are_encoded_alike(model, texts):
    batch = [*texts, *AWKWARD] * 12
    small, large = Tokenizer(model), Tokenizer(model)
    plain = small.encode_batch(batch)
    quick = large.encode_batch(pa.array(batch, pa.large_string()))
    assert large._fast is not None
    assert small._fast is None
    for one, other in zip(plain, quick, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert large.encode_batch(pa.array([], pa.large_string()))[0].tolist() == []
