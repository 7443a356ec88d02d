"""The checks that a session with a GPU runs, rehearsed on the CPU: `python -m benchmarks.gpu`."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu, gpu_checks
from benchmarks.gpu_checks import CHECKS, Place, found_by
from shards.torch import TorchLoader
from trainer.documents import block_mask
from trainer.run import Run

NANOGPT = """
from dataclasses import dataclass
import torch
import torch.nn.functional as F

@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    bias: bool

class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.table = torch.nn.Embedding(config.vocab_size, config.n_embd)

    def forward(self, tokens, targets):
        logits = self.table(tokens) @ self.table.weight.T
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def configure_optimizers(self, decay, rate, betas, device):
        return torch.optim.AdamW(self.parameters(), lr=rate, betas=betas, weight_decay=decay)
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "model.py").write_text(NANOGPT)
    return Place("cpu", compile=False, nanogpt=str(tmp_path), folder=tmp_path)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", CHECKS)
def test_every_check_holds_at_a_tiny_size(place, name):
    found = found_by(name, place)
    assert found["ok"] is True, found
    json.dumps(found)


def test_every_check_has_its_time():
    assert list(gpu.LIMITS) == list(CHECKS)


def test_a_run_that_resumes_with_another_weight_is_told_apart(place, monkeypatch):
    honest = Run._restore

    def nudged(self, checkpoint, state):
        honest(self, checkpoint, state)
        self.model.norm.weight.data[0] += 1e-3

    monkeypatch.setattr(Run, "_restore", nudged)
    found = found_by("resume", place)
    assert found["ok"] is found["state"] is found["losses"] is False
    assert found["first_difference"] == 6


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_masks_that_forget_the_documents_are_told_apart(place, monkeypatch):
    monkeypatch.setattr(gpu_checks, "block_mask", lambda numbers: block_mask(numbers * 0))
    assert found_by("masks", place)["ok"] is False


def test_batches_that_were_overwritten_are_told_apart(place, monkeypatch):
    class Torn(TorchLoader):
        def __next__(self):
            inputs, targets = super().__next__()
            return inputs * 0, targets

    monkeypatch.setattr(gpu_checks, "TorchLoader", Torn)
    assert found_by("loader", place) == {"ok": False, "batches": 16, "wrong": 16}


def test_an_error_ends_a_check_and_not_those_after_it(place, monkeypatch):
    def broken(_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setitem(CHECKS, "masks", broken)
    found = found_by("masks", place)
    assert found["ok"] is False
    assert found["error"] == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert "in broken" in found["traceback"]


def test_the_command_prints_one_object_and_tells_of_what_did_not_run():
    command = [sys.executable, "-m", "benchmarks.gpu", "--cpu", "--only", "card,masks"]
    command += ["--limit", "0.01"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert found["ok"] is False
    assert found["checks"]["masks"] == {
        "ok": False,
        "error": "did not get its turn within --limit",
    }


def test_a_check_that_is_killed_or_hangs_has_an_error(monkeypatch):
    place = {"device": "cpu", "compile": False, "nanogpt": None}
    assert gpu.run_check("card", place, 120)["torch"] == str(torch.__version__)
    assert gpu.run_check("card", place, 0.05)["error"] == "not done within 0 s"
    monkeypatch.setattr(gpu.sys, "executable", "/bin/false")
    assert gpu.run_check("card", place, 60)["error"] == "ended with 1 and said nothing"
