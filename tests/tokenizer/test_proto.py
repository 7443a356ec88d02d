import io

import pytest
import sentencepiece

from tokenizer.proto import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, read_model_proto


def test_agrees_with_sentencepiece(model):
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    found = read_model_proto(model)
    assert found.plain
    assert [piece.text for piece in found.pieces] == [
        processor.IdToPiece(i) for i in range(len(processor))
    ]
    assert [piece.score for piece in found.pieces] == [
        processor.GetScore(i) for i in range(len(processor))
    ]
    kinds = [UNKNOWN, CONTROL, *[BYTE] * 256]
    assert [piece.kind for piece in found.pieces] == [*kinds, *[NORMAL] * (600 - 258)]


@pytest.mark.parametrize(
    "options",
    [
        {"normalization_rule_name": "nmt_nfkc"},
        {"add_dummy_prefix": True},
        {"remove_extra_whitespaces": True},
        {"byte_fallback": False},
        {"model_type": "unigram"},
    ],
)
def test_tells_what_is_not_plain(texts, options):
    plain = {
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "byte_fallback": True,
        "model_type": "bpe",
    }
    sink = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts[:40]),
        model_writer=sink,
        vocab_size=400,
        minloglevel=3,
        user_defined_symbols=["def "],
        **plain | options,
    )
    found = read_model_proto(sink.getvalue())
    assert not found.plain
    assert [piece.text for piece in found.pieces if piece.kind == USER_DEFINED] == ["def "]


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_a_cut_file_is_refused(model, cut):
    with pytest.raises(ValueError, match="not a sentencepiece model"):
        read_model_proto(model[:-cut])
