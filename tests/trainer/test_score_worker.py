import io

import numpy as np
import pyarrow as pa
import pytest
import torch

from shards.errors import DatasetError
from tests.trainer.conftest import EOS, VOCABULARY, counting_table
from trainer.config import ModelConfig
from trainer.model import Transformer
from trainer.score import TrainedModel, lm_bpb
from trainer.score_worker import answer, decode_documents


def trained(vocabulary=VOCABULARY):
    model = Transformer(ModelConfig(dim=16, layers=1, heads=2), vocabulary, 8)
    model.initialise(0)
    return TrainedModel(model, 8, vocabulary, torch.device("cpu"))


def request(*batches):
    schema = batches[0].schema.with_metadata({"eos_id": str(EOS)})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))
    return io.BytesIO(sink.getvalue())


def batch(first, count):
    table = counting_table(20).select(["bytes", "tokens"])
    return table.slice(first, count).combine_chunks().to_batches()[0]


def test_each_batch_is_answered_in_its_order():
    answers = io.BytesIO()
    answer(trained(), request(batch(0, 3), batch(3, 5)), answers)
    found = np.frombuffer(answers.getvalue(), np.float32)
    parts = [lm_bpb(trained(), decode_documents(batch(*rows), EOS)) for rows in ((0, 3), (3, 5))]
    assert np.array_equal(found, np.concatenate(parts))


def test_a_slice_has_the_documents_of_its_rows():
    whole, part = decode_documents(batch(0, 9), EOS), decode_documents(batch(0, 9).slice(4, 2), EOS)
    assert part.offsets[0] == 0
    assert np.array_equal(part.tokens, whole.tokens[whole.offsets[4] : whole.offsets[6]])
    assert np.array_equal(part.bytes, whole.bytes[4:6])


def test_tokens_beyond_the_vocabulary_are_refused():
    with pytest.raises(DatasetError, match="another tokenizer"):
        answer(trained(vocabulary=5), request(batch(0, 3)), io.BytesIO())
