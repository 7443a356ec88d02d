import json
import shutil

import pytest

from pipelines.report.parts import read_parts
from shards.errors import CorruptError, DatasetError


def test_a_whole_chain(chain, write_study):
    write_study()
    parts = read_parts(chain)
    assert parts.name == "my chain"
    assert all((parts.curated, parts.tokenizer, parts.tokens, parts.study))
    assert parts.run is None
    assert parts.notes == []
    assert parts.study.seconds == pytest.approx(6 * 2000 / 100)


@pytest.mark.parametrize("missing", ["curated", "tokenizer", "tokens", "runs"])
def test_missing_parts_are_none(chain, write_study, missing):
    write_study()
    shutil.rmtree(chain / missing)
    parts = read_parts(chain)
    name = "study" if missing == "runs" else missing
    assert getattr(parts, name) is None


def test_nothing_at_all_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="nothing to report"):
        read_parts(tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        read_parts(tmp_path / "absent")


def test_a_dataset_of_the_wrong_kind_is_named(chain):
    shutil.rmtree(chain / "tokens")
    shutil.copytree(chain / "curated", chain / "tokens")
    with pytest.raises(DatasetError, match="holds documents, expected tokens"):
        read_parts(chain)


def test_a_broken_study_is_named(chain):
    (chain / "runs" / "study.json").write_text('{"arms": 3}')
    with pytest.raises(CorruptError, match=r"study\.json: not a study record.*assay study"):
        read_parts(chain)


def test_a_study_of_other_tokens_is_noted(chain, write_study):
    write_study(dataset_id="0" * 32)
    (note,) = read_parts(chain).notes
    assert "0" * 32 in note


def test_tokens_of_another_tokenizer_are_noted(chain):
    path = chain / "tokenizer" / "tokenizer.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "sha256": "f" * 64}))
    (note,) = read_parts(chain).notes
    assert "ffffffffffff" in note


def test_fields_that_the_report_does_not_know_are_skipped(chain, write_study):
    write_study(something_new=1)
    assert read_parts(chain).study.control == "raw"
