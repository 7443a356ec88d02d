import pytest

from shards.config import decode
from shards.errors import RecipeError
from tokenizer.config import TokenizerConfig


def test_an_empty_table_is_enough():
    assert decode({}, "tokenizer", TokenizerConfig) == TokenizerConfig()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"model_type": "unigram"}, "another number of threads"),
        ({"model_type": "word"}, "'word' is unknown; use 'bpe'"),
        ({"vocab_size": 258}, r"tokenizer\.vocab_size = 258: .*>= 259"),
        ({"character_coverage": 0.5}, r"tokenizer\.character_coverage = 0\.5"),
        ({"vocab": 5000}, "did you mean 'vocab_size'"),
    ],
)
def test_says_what_is_wrong(table, message):
    with pytest.raises(RecipeError, match=message):
        decode({"tokenizer": table}, "tokenizer", TokenizerConfig)
