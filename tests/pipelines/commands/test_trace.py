"""`assay trace` against the loader itself, on a small chain: curate, tokenizer, tokenize."""

import json
import shutil

import fsspec
import msgspec
import pytest
from click.testing import CliRunner

from pipelines.commands.trace import trace_command
from pipelines.curate.job import curate
from pipelines.recipe import curate_recipe
from pipelines.runners import JobOptions
from pipelines.tokenize import TokenizeConfig, tokenize
from pipelines.trace import Settings, trace
from shards.batches import open_batches
from shards.dataset import TokenDataset
from shards.errors import CorruptError, DatasetError, RecipeError
from shards.loader import Loader
from shards.view_file import write_view
from tokenizer.config import TokenizerConfig
from tokenizer.job import train_tokenizer
from tokenizer.model import Tokenizer
from trainer.begun import write_begun
from trainer.config import TrainConfig
from trainer.study_arms import open_arms
from trainer.study_config import Band, Cells, Curriculum, Mix, Probes, StudyConfig

SELECT = "split == 'train' and dropped == ''"
T, B, SEED, STEPS = 64, 4, 3, 200
SHAPE = {"sequence_length": T, "batch_size": B, "learning_rate": 0.1}
MIXTURE = {
    "sources": {"short": "bytes < 500", "long": "bytes >= 500"},
    "stages": [{"weights": {"short": 3, "long": 1}}, {"start": 1024, "weights": {"long": 1}}],
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A folder as `assay run` leaves it, with the record of one run."""
    from tests.pipelines.conftest import make_documents, write_jsonl

    root = tmp_path_factory.mktemp("chain")
    write_jsonl(root / "in.jsonl", make_documents(60, seed=1))
    quiet = JobOptions(quiet=True)
    recipe = curate_recipe({"input": {"paths": [str(root / "in.jsonl")]}})
    curate(recipe, str(root / "curated"), quiet)
    train_tokenizer(root / "curated", root / "tokenizer", TokenizerConfig(vocab_size=400))
    tokenize(
        str(root / "curated"),
        str(root / "tokenizer"),
        str(root / "tokens"),
        TokenizeConfig(documents="all"),
        quiet,
    )
    view = TokenDataset.open(root / "tokens").select(SELECT)
    write_run(root / "runs" / "a-1", view)
    return root


def write_run(folder, view, name="run.json", **changes):
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "dataset_id": view.dataset.dataset_id,
        "select": view.expression,
        "selection_hash": view.selection_hash,
        "seed": SEED,
        "steps": STEPS,
        "config": SHAPE,
        "definitions": {"loop": "1"},
        "bpb": 2.0,
    }
    (folder / name).write_text(json.dumps(record | changes))


def loader(chain, **options):
    view = TokenDataset.open(chain / "tokens").select(SELECT)
    return Loader(view, sequence_length=T, batch_size=B, seed=SEED, **options)


@pytest.mark.parametrize("world_size", [1, 2])
def test_names_the_text_that_each_row_of_a_batch_holds(chain, world_size):
    tokenizer = Tokenizer.load(chain / "tokenizer")
    sources = [loader(chain, rank=rank, world_size=world_size) for rank in range(world_size)]
    inputs = [json.loads(line) for line in (chain / "in.jsonl").read_text().splitlines()]
    for step in range(1, 4):
        for rank, source in enumerate(sources):
            batch = source.next()
            for row in range(B // world_size):
                found = trace(chain / "runs/a-1", step, rank, row, world_size=world_size)
                assert found.g == batch.indices[row]
                real = batch.tokens[row, : batch.lengths[row]].tolist()
                pieces = b"".join(tokenizer.piece_bytes[i] for i in real).decode()
                assert "".join(part.sample_text for part in found.parts) == pieces
                assert sum(part.tokens for part in found.parts) == len(real)
                for part in found.parts:
                    assert part.sample_text in part.document["text"]
                    (record,) = [r for r in inputs if r["id"] == part.document["id"]]
                    assert record["text"] == part.document["text"]
                    assert part.document["path"].endswith("in.jsonl")


@pytest.mark.parametrize("packing", ["none", "best-fit"])
@pytest.mark.parametrize("step", [1, 256, 257])  # before and after the weights change
def test_a_run_under_way_with_a_mixture_and_packing_is_traced(chain, tmp_path, packing, step):
    view = TokenDataset.open(chain / "tokens").select(SELECT)
    config = SHAPE | {"packing": packing, "mixture": MIXTURE}
    facts = {"data": str(chain / "tokens"), "world_size": 2}
    write_run(tmp_path / "run", view, "begun.json", config=config, steps=300, facts=facts)
    settings = msgspec.convert(config, Settings)
    sources = [open_batches(view, settings, SEED, rank=rank, world_size=2) for rank in (0, 1)]
    tokenizer = Tokenizer.load(chain / "tokenizer")
    for rank, source in enumerate(sources):
        source.load_state({**source.state(), "g": (step - 1) * B})
        batch = source.next()
        for row in range(2):
            found = trace(tmp_path / "run", step, rank, row)
            assert found.source == source.source(found.g)
            assert step < 257 or found.source == "long"
            assert not found.finished
            real = batch.tokens[row, : batch.lengths[row]].tolist()
            pieces = b"".join(tokenizer.piece_bytes[i] for i in real).decode()
            assert "".join(part.sample_text for part in found.parts) == pieces
            assert all(part.sample_text in part.document["text"] for part in found.parts)
    shown = CliRunner().invoke(trace_command, [str(tmp_path / "run"), "--step", str(step)]).stdout
    assert "of source " in shown
    assert "the run is not finished" in shown


STUDY = StudyConfig(
    arms={"raw": "split == 'train'", "curated": SELECT},
    bands={"dense": Band(signal="zstd_bpb", low=0.5)},
    mixtures={"mix": Mix(weights={})},  # see `cells`
    cells=Cells(signal="bytes", bins=3),
    curricula={"rising": Curriculum(signal="bytes", stages=3)},
    probes=Probes(count=1),
    random_like=["curated"],
    repeats=[4],
)
CONFIG = TrainConfig(sequence_length=T, batch_size=B, steps=8, seed=2)


@pytest.mark.parametrize("budget", ["flops", "unique"])
def test_the_arms_that_a_study_draws_are_traced(chain, tmp_path, budget):
    dataset, study = TokenDataset.open(chain / "tokens"), STUDY
    study = msgspec.structs.replace(study, mixtures={"mix": Mix(weights=cells(dataset))})
    if budget == "unique":
        study = StudyConfig(arms=STUDY.arms, curricula=STUDY.curricula, budget="unique")
    tokenizer = Tokenizer.load(chain / "tokenizer")
    arms = open_arms(dataset, study, CONFIG.steps * CONFIG.batch_tokens, [CONFIG.seed])
    hashes = set()
    for name, arm in arms[CONFIG.seed].items():
        folder = tmp_path / name
        folder.mkdir()
        write_begun(folder, arm.view, CONFIG, 1)
        hashes.add(arm.view.selection_hash)
        source = open_batches(arm.view, CONFIG, CONFIG.seed)
        for step in range(1, CONFIG.steps + 1):
            batch = source.next()
            for row in (0, B - 1):
                found = trace(folder, step, row=row)
                real = batch.tokens[row, : batch.lengths[row]].tolist()
                pieces = b"".join(tokenizer.piece_bytes[i] for i in real).decode(errors="replace")
                assert "".join(part.sample_text for part in found.parts) == pieces, name
                assert found.draw == arm.view.draw
    assert len(hashes) >= len(arms[CONFIG.seed]) - 2  # so most are no plain selections
    if budget == "flops":
        assert arms[CONFIG.seed]["mix"].copies.max() > 1
        shown = CliRunner().invoke(trace_command, [str(tmp_path / "repeat-4"), "--step", "1"])
        assert "of the selection, of which 1/4 of the budget)" in shown.stdout


def cells(dataset):
    """Weights of which one cell is so small that documents are read repeatedly."""
    name = dataset.sources[0]
    return {f"{name}/1": 3.0, f"{name}/3": 1.0}


def test_a_list_of_drawn_documents_that_is_gone_or_anothers_is_refused(chain, tmp_path):
    dataset = TokenDataset.open(chain / "tokens")
    arms = open_arms(dataset, STUDY_OF_TWO, 2000, [1])[1]
    run, other = arms["random-curated"].view, arms["repeat-2"].view
    write_begun(tmp_path, run, CONFIG, 1)
    write_view(tmp_path / "documents.npz", other)
    with pytest.raises(DatasetError, match=r"documents\.npz has other documents than the run read"):
        trace(tmp_path, 1)
    (tmp_path / "documents.npz").write_bytes(b"PK")
    with pytest.raises(CorruptError, match="not the documents of a run"):
        trace(tmp_path, 1)
    (tmp_path / "documents.npz").unlink()
    with pytest.raises(DatasetError, match=r"is gone, which says what of .*as many tokens as cur"):
        trace(tmp_path, 1)


STUDY_OF_TWO = StudyConfig(arms=STUDY.arms, random_like=["curated"], repeats=[2])


def test_a_run_on_remote_data_is_traced(chain, tmp_path):
    fsspec.filesystem("memory").put(str(chain / "tokens"), "memory://traced", recursive=True)
    view = TokenDataset.open(chain / "tokens").select(SELECT)
    write_run(tmp_path / "run", view, facts={"data": "memory://traced"})
    found = trace(tmp_path / "run", 7, documents=chain / "curated")
    assert found.tokens == "memory://traced"
    near = trace(chain / "runs/a-1", 7)
    assert [part.doc_id for part in found.parts] == [part.doc_id for part in near.parts]


def test_prints_one_json_object_or_text(chain):
    arguments = [str(chain / "runs/a-1"), "--step", "5", "--row", "2"]
    found = json.loads(CliRunner().invoke(trace_command, [*arguments, "--json"]).stdout)
    assert (found["step"], found["rank"], found["row"], found["g"]) == (5, 0, 2, 4 * B + 2)
    shown = CliRunner().invoke(trace_command, arguments, catch_exceptions=False).stdout
    for part in found["parts"]:
        assert part["doc_id"] in shown
        assert f"in.jsonl at byte {part['document']['position']:,}" in shown
        assert part["sample_text"].splitlines()[0] in shown


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"step": 0}, f"--step 0: this run has 1 to {STEPS}"),
        ({"step": STEPS + 1}, f"this run has 1 to {STEPS}"),
        ({"step": 1, "rank": 1}, "--rank 1: this run has 0 to 0"),
        ({"step": 1, "row": B}, "--row 4: this run has 0 to 3"),
        ({"step": 1, "row": 2, "world_size": 2}, "--row 2: this run has 0 to 1"),
        ({"step": 1, "world_size": 3}, "--world-size 3 does not divide the run's batch of 4 rows"),
    ],
)
def test_refuses_places_that_the_run_does_not_have(chain, place, message):
    with pytest.raises(RecipeError, match=message):
        trace(chain / "runs/a-1", **place)


def test_without_the_tokenizer_the_document_is_there(chain, tmp_path):
    shutil.copytree(chain, tmp_path / "moved", ignore=shutil.ignore_patterns("tokenizer"))
    manifest = tmp_path / "moved/tokens/manifest.json"
    assert str(chain / "tokenizer") in manifest.read_text()
    (chain / "tokenizer").rename(chain / "away")
    try:
        (part, *_) = trace(tmp_path / "moved/runs/a-1", 1).parts
    finally:
        (chain / "away").rename(chain / "tokenizer")
    assert part.sample_text is None
    assert part.document["text"]


def test_says_what_is_missing_or_differs(chain, tmp_path):
    view = TokenDataset.open(chain / "tokens").select(SELECT)
    run = tmp_path / "run"
    with pytest.raises(DatasetError, match=r"not a run \(no run\.json and no begun"):
        trace(run, 1)
    write_run(run, view)
    with pytest.raises(DatasetError, match=r"is not near it; say where it is with --tokens"):
        trace(run, 1)
    assert trace(run, 1, tokens=chain / "tokens").parts
    with pytest.raises(DatasetError, match="is not the dataset"):
        trace(run, 1, tokens=chain / "tokens", documents=chain / "tokens")
    for changes, message in (
        ({"dataset_id": "x"}, "the run read x"),
        ({"selection_hash": "x"}, "now keeps other documents than the run read"),
        ({"definitions": {"order": "rot13"}}, "in the order 'rot13'"),
        (
            {"definitions": {"packing": "x"}, "config": SHAPE | {"packing": "best-fit"}},
            "in the packing 'x'",
        ),
        ({"config": SHAPE | {"batch_size": 0}}, r"run\.json: not a run's record: .* `int` >= 1"),
        ({"seed": "x"}, r"run\.json: not a run's record: Expected `int`"),
    ):
        write_run(run, view, **changes)
        with pytest.raises(DatasetError, match=message):
            trace(run, 1, tokens=chain / "tokens")
