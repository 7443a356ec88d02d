"""Small corpora that tests make themselves."""

import json
import random

import pytest
import zstandard

WORDS = (
    "the of and to in that with have be ore metal furnace assay weight silver copper slag smelt"
    " charge sample bullion crucible flux lead bone ash cupel button proof standard measure mint"
    " carat fine alloy refine scale balance grain pennyweight vein lode shaft adit gangue"
).split()


def sentence(rng, length):
    return " ".join(rng.choice(WORDS) for _ in range(length)).capitalize() + "."


def make_documents(count, seed=0):
    """Prose of about 120 words; every 5th is an edited copy of the one before, every 7th a copy."""
    rng = random.Random(seed)
    documents = []
    for number in range(count):
        if number % 5 == 4:
            words = documents[-1]["text"].split(" ")
            words[rng.randrange(len(words))] = "edited"
            text = " ".join(words)
        elif number % 7 == 6:
            text = documents[-2]["text"]
        elif number % 11 == 10:
            text = "too short"
        else:
            text = "\n".join(sentence(rng, 12) for _ in range(10))
        documents.append(
            {"id": f"d{number}", "text": text, "source": f"s{number % 3}", "url": f"u:{number}"}
        )
    return documents


def write_jsonl(path, documents):
    """Write records as JSON Lines; `.zst` in frames of 20 records, so that it can be split."""
    lines = [json.dumps(document, ensure_ascii=False).encode() + b"\n" for document in documents]
    if path.suffix == ".zst":
        packer = zstandard.ZstdCompressor()
        frames = [packer.compress(b"".join(lines[i : i + 20])) for i in range(0, len(lines), 20)]
        path.write_bytes(b"".join(frames))
    else:
        path.write_bytes(b"".join(lines))
    return path


@pytest.fixture
def corpus(tmp_path):
    """Two input files of 60 documents each, one plain and one zstd."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_jsonl(folder / "one.jsonl", make_documents(60, seed=1))
    write_jsonl(folder / "two.jsonl.zst", make_documents(60, seed=2))
    return folder
