import io

import numpy as np
import pyarrow as pa
import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from shards.errors import DatasetError
from tokenizer.model import Tokenizer
from tokenizer.train import EOS_ID, UNK_ID

AWKWARD = [
    "",
    " ",
    "   leading and trailing   ",
    "\n\n\ta\r\n",
    "a\0b\0",
    "\u2581",
    "a \u2581 b\u2581\u2581c ",
    "\u2585\u2047\ufffd\ufeff",
    "<s></s><unk><pad><0x41>",
    "e\u0301 \u00e9 \ufb01 \uff21",
    "\U0001f600\u200d\U0010ffff",
    "\x01\x7f\x85\u2028",
]

any_text = st.text(st.characters(codec="utf-8")) | st.text(
    st.sampled_from(" \u2581\u2585\0\n\t<s>/ab\u00e9\U0001f600"), max_size=60
)


@given(st.lists(any_text, max_size=6))
@example(AWKWARD)
def test_every_text_comes_back(tokenizer, batch):
    ids, offsets = tokenizer.encode_batch(batch)
    assert ids.dtype == np.uint16
    assert offsets.dtype == np.int64
    for text, start, end in zip(batch, offsets[:-1], offsets[1:], strict=True):
        assert tokenizer.decode(ids[start:end].tolist()) == text
        assert ids[end - 1] == EOS_ID
        assert not np.isin(ids[start : end - 1], [UNK_ID, EOS_ID]).any()
    assert len(tokenizer.check_lossless(batch, ids, offsets)) == 0


def test_ids_are_those_of_sentencepiece_and_of_each_document_alone(model, tokenizer, texts):
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    ids, offsets = tokenizer.encode_batch(texts)
    expected = [[*processor.encode(text), EOS_ID] for text in texts]
    assert ids.tolist() == [i for document in expected for i in document]
    assert np.diff(offsets).tolist() == [len(document) for document in expected]
    assert tokenizer.encode(texts[0]).tolist() == expected[0]


def test_threads_and_arrow_strings_change_nothing(tokenizer, texts):
    batch = [*texts[:20], *AWKWARD]
    plain = tokenizer.encode_batch(batch)
    for other in (
        tokenizer.encode_batch(batch, threads=2),
        tokenizer.encode_batch(pa.array(batch, pa.large_string())),
    ):
        assert np.array_equal(plain[0], other[0])
        assert np.array_equal(plain[1], other[1])


def test_decoding_agrees_with_sentencepiece_where_that_is_lossless(model, tokenizer, texts):
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in texts[:50]:
        ids = tokenizer.encode(text).tolist()
        assert tokenizer.decode(ids) == processor.decode(ids) == text


def test_a_cut_character_decodes_to_the_replacement_character(tokenizer):
    ids = tokenizer.encode("\U0001f600").tolist()
    assert tokenizer.decode(ids[:2]) == "\ufffd"


def test_the_check_finds_every_kind_of_damage(tokenizer):
    batch = ["some text", "more text", "last"]
    ids, offsets = tokenizer.encode_batch(batch)

    def failures(change):
        damaged, cuts = ids.copy(), offsets.copy()
        change(damaged, cuts)
        return tokenizer.check_lossless(batch, damaged, cuts).tolist()

    def put(place, value):
        return lambda damaged, cuts: damaged.__setitem__(place, value)

    assert failures(lambda damaged, cuts: None) == []
    assert failures(put(0, ids[1])) == [0]
    assert failures(put(offsets[1] - 1, ids[0])) == [0]  # no EOS
    assert failures(put(offsets[1], EOS_ID)) == [1]  # EOS inside
    assert failures(put(offsets[2], UNK_ID)) == [2]
    assert failures(put(offsets[2], tokenizer.vocab_size)) == [2]  # not an id at all
    assert failures(lambda damaged, cuts: cuts.__setitem__(1, cuts[1] - 1)) == [0, 1]
    assert failures(lambda damaged, cuts: cuts.__setitem__(1, cuts[0])) == [0, 1]
    assert tokenizer.check_lossless(["", *batch[1:]], ids, offsets).tolist() == [0]
    assert tokenizer.check_lossless(["some text and more", *batch[1:]], ids, offsets).tolist() == [
        0
    ]


def test_the_check_reads_slices_and_uint32(tokenizer):
    batch = pa.array(["left out", "a", "b"], pa.large_string()).slice(1)
    ids, offsets = tokenizer.encode_batch(batch)
    assert len(tokenizer.check_lossless(batch, ids.astype(np.uint32), offsets)) == 0


def test_lone_surrogates_are_refused(tokenizer):
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode("\ud800")


@pytest.mark.parametrize("data", [b"", b"not a model"])
def test_other_files_are_refused(data):
    with pytest.raises(DatasetError, match="tok: not a sentencepiece model"):
        Tokenizer(data, "tok")


@pytest.mark.parametrize(
    "options",
    [
        {"normalization_rule_name": "nmt_nfkc", "byte_fallback": True},
        {"normalization_rule_name": "identity", "byte_fallback": True},  # dummy prefix
        {"normalization_rule_name": "identity", "add_dummy_prefix": False},  # no byte fallback
    ],
)
def test_models_that_lose_text_are_refused(texts, options):
    sink = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts[:40]),
        model_writer=sink,
        vocab_size=400,
        model_type="bpe",
        minloglevel=3,
        **options,
    )
    with pytest.raises(DatasetError, match="the model loses text"):
        Tokenizer(sink.getvalue())
