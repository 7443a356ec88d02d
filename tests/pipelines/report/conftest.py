"""A chain in small: real curate, tokenizer and tokenize over hostile texts, and a made-up study."""

import json
import random
import shutil

import pytest
from click.testing import CliRunner

from pipelines.cli import assay

PROSE = """the of and to in that with have be ore metal furnace assay weight silver copper slag
smelt charge sample bullion crucible flux lead bone ash cupel button proof standard measure mint"""
WORDS = PROSE.split()

HOSTILE = '<script>alert("x")</script> & </pre><img src=x onerror=alert(1)> \x07\u202e'

RECIPE = """
[input]
paths = []
[filters]
presets = ["gopher"]
[dedup.near]
threshold = 0.7
[split]
valid_fraction = 0.2
[output]
shard_bytes = 65536
[tokenizer]
vocab_size = 512
[tokenize]
documents = "all"
"""


def make_records(count, seed=0):
    """Prose; every 5th an edited copy of the one before, every 7th a copy, every 11th too short."""
    rng = random.Random(seed)
    texts = []
    for number in range(count):
        text = "\n".join(" ".join(rng.choice(WORDS) for _ in range(12)) for _ in range(10))
        if number % 5 == 4:
            text = f"{texts[-1]}\n{HOSTILE}"
        elif number % 7 == 6:
            text = texts[-2]
        elif number % 11 == 10:
            text = f"short {number} {HOSTILE}"
        texts.append(text)
    return [
        {"id": f"d{i}", "text": text, "source": f"s<{i % 3}>", "url": f"javascript:alert({i})"}
        for i, text in enumerate(texts)
    ]


@pytest.fixture(scope="session")
def made_chain(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "my chain"
    root.mkdir()
    lines = [json.dumps(record) for record in make_records(80)]
    (root / "corpus.jsonl").write_text("\n".join([*lines, '{"text": broken']), encoding="utf-8")
    (root / "recipe.toml").write_text(RECIPE)
    recipe, curated, tokenizer, tokens = (
        str(root / name) for name in ("recipe.toml", "curated", "tokenizer", "tokens")
    )
    paths = json.dumps([str(root / "corpus.jsonl")])
    for words in (
        ["curate", recipe, "--out", curated, "--set", f"input.paths={paths}"],
        ["tokenizer", "train", recipe, "--data", curated, "--out", tokenizer],
        ["tokenize", recipe, "--data", curated, "--tokenizer", tokenizer, "--out", tokens],
    ):
        result = CliRunner().invoke(assay, [*words, "--quiet"], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    (root / "runs").mkdir()
    return root


@pytest.fixture
def chain(made_chain, tmp_path):
    """A copy of the chain that a test may change; `runs` is empty."""
    return shutil.copytree(made_chain, tmp_path / "my chain")


def make_arm(bpb, seeds=(1, 2, 3), **changes):
    """One arm's result as `study.json` holds it, with two curve points a seed."""
    return {
        "select": "split == 'train'",
        "documents": 50,
        "available_tokens": 5000,
        "tokens": 2000,
        "unique_tokens": 2000,
        "epochs": 0.4,
        "bpb": bpb,
        "by_source": {"s<0>": bpb},
        "baselines": {"unigram": 3.2, "bigram": 2.6},
        "seeds": [
            {
                "seed": seed,
                "bpb": bpb + 0.01 * seed,
                "tokens_per_s": 100.0,
                "curve": [
                    {"step": 1, "tokens": 1000, "train_loss": 5.0, "valid_bpb": bpb + 0.5},
                    {"step": 2, "tokens": 2000, "train_loss": 4.0, "valid_bpb": bpb + 0.01 * seed},
                ],
            }
            for seed in seeds
        ],
        **changes,
    }


def make_study(dataset_id, **changes):
    """A `study.json` with two arms whose gate passed."""
    better = {
        "select": "split == 'train' and dropped == ''",
        "delta": -0.1,
        "ci_low": -0.14,
        "ci_high": -0.06,
        "seed_ci": [-0.12, -0.08],
        "document_ci": [-0.13, -0.07],
        "verdict": "arm better",
    }
    return {
        "format": 1,
        "dataset_id": dataset_id,
        "study": {"level": 0.05},
        "train": {"tokens": 2000},
        "parameters": 1_234_567,
        "flops": 10**9,
        "tokens": 2000,
        "valid": {
            "select": "split == 'valid'",
            "documents": 7,
            "tokens": 900,
            "bytes": 4096,
            "zstd_bpb": 2.9,
        },
        "arms": {"raw": make_arm(2.4), "curated": make_arm(2.3, **better)},
        "control": "raw",
        "gate_passed": True,
        "gate": "all 6 runs beat the unigram and bigram models of what they read",
        "verdict": "conclusive",
        "sentence": "With 3 seeds, curated is better than raw: -0.1000 bpb.",
        **changes,
    }


@pytest.fixture(name="make_study")
def make_study_fixture():
    return make_study


@pytest.fixture(name="make_arm")
def make_arm_fixture():
    return make_arm


@pytest.fixture
def write_study(chain):
    """Write a study of the chain's tokens into its `runs`; keyword arguments change it."""

    def write(**changes):
        tokens = json.loads((chain / "tokens" / "manifest.json").read_text())
        study = make_study(**{"dataset_id": tokens["dataset_id"], **changes})
        (chain / "runs" / "study.json").write_text(json.dumps(study))
        return study

    return write
