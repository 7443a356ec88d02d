import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import CorruptError, DatasetError, TrainingError
from tests.trainer.conftest import EOS, TINY, VOCABULARY
from trainer.config import ModelConfig
from trainer.data import Documents, read_documents
from trainer.loop import train
from trainer.model import Transformer
from trainer.progress import Reporter
from trainer.records import RUN, RunRecord, read_record, write_record
from trainer.score import TrainedModel, lm_bpb, load_model

LENGTH = 8


def random_model():
    model = Transformer(ModelConfig(dim=16, layers=1, heads=2), VOCABULARY, LENGTH)
    model.initialise(0)
    with torch.no_grad():
        model.head.normal_(generator=torch.Generator().manual_seed(1))
    return TrainedModel(model, LENGTH, VOCABULARY, torch.device("cpu"))


TRAINED = random_model()


def documents_of(texts, sizes):
    tokens = [np.array([*text, EOS], np.uint16) for text in texts]
    return Documents(
        tokens=np.concatenate(tokens),
        offsets=np.cumsum([0, *map(len, tokens)]),
        bytes=np.array(sizes, np.int64),
        source=np.zeros(len(texts), np.int64),
        sources=("",),
        eos=EOS,
    )


def by_definition(text, size):
    """Token by token: position i is predicted from what `evaluate` promises it has before it."""
    targets = [*text, EOS]
    before = [EOS, *text]
    stride = 3 * LENGTH // 4
    nats = 0.0
    for place in range(len(targets)):
        windows_before = max(0, -(-(place + 1 - LENGTH) // stride))
        start = windows_before * stride
        logits = TRAINED.model(torch.tensor([before[start : place + 1]]))[0, -1]
        nats -= logits.double().log_softmax(-1)[targets[place]].item()
    return nats / math.log(2) / size


ids = st.integers(3, VOCABULARY - 1)
texts_and_sizes = st.lists(
    st.tuples(st.lists(ids, max_size=3 * LENGTH), st.integers(1, 50)), min_size=1, max_size=4
)


@settings(max_examples=8)
@given(texts_and_sizes)
def test_nats_of_all_tokens_and_eos_over_bytes_in_any_batch(rows):
    """Batches differ in composition and padding; each document alone gives the same."""
    texts, sizes = zip(*rows, strict=True)
    together = lm_bpb(TRAINED, documents_of(texts, sizes))
    backwards = lm_bpb(TRAINED, documents_of(texts[::-1], sizes[::-1]))[::-1]
    with torch.no_grad():
        expected = [by_definition(text, size) for text, size in rows]
    assert together.dtype == np.float32
    assert np.allclose(together, expected, rtol=1e-4)
    assert np.allclose(backwards, together, rtol=1e-5)
    alone = [lm_bpb(TRAINED, documents_of([text], [size]))[0] for text, size in rows]
    assert np.allclose(alone, together, rtol=1e-5)


def test_no_text_costs_nothing():
    assert lm_bpb(TRAINED, documents_of([[], [3]], [0, 1])).tolist()[0] == 0


def test_weights_that_are_not_finite_are_an_error():
    broken = random_model()
    with torch.no_grad():
        broken.model.head.fill_(torch.nan)
    with pytest.raises(TrainingError, match="document 0 of a batch of 1"):
        lm_bpb(broken, documents_of([[3]], [1]))


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    valid = read_documents(dataset, "split == 'valid'", TINY.eval_tokens)
    train(dataset.select("split == 'train'"), valid, TINY, folder, Reporter(quiet=True))
    return folder


def test_a_run_scores_its_validation_documents_as_its_record_says(run, dataset):
    valid = read_documents(dataset, "split == 'valid'", TINY.eval_tokens)
    bpb = lm_bpb(load_model(run, "cpu"), valid).astype(np.float64)
    record = read_record(run / RUN, RunRecord)
    assert math.isclose(bpb @ valid.bytes / valid.bytes.sum(), record.bpb, rel_tol=1e-6)


def test_what_is_not_a_finished_run_is_refused(run, tmp_path):
    with pytest.raises(DatasetError, match=r"no run\.json"):
        load_model(tmp_path, "cpu")
    (tmp_path / RUN).write_bytes((run / RUN).read_bytes())
    with pytest.raises(DatasetError, match="no checkpoint of step 12"):
        load_model(tmp_path, "cpu")


def test_a_checkpoint_of_another_run_is_refused(run, tmp_path):
    for path in run.glob("checkpoint-*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    record = read_record(run / RUN, RunRecord)
    changed = {name: getattr(record, name) for name in record.__struct_fields__}
    write_record(tmp_path / RUN, RunRecord(**{**changed, "checkpoint_sha256": "0" * 64}))
    with pytest.raises(CorruptError, match="states 0000"):
        load_model(tmp_path, "cpu")
