"""A step on a GPU as far as it can be followed without one: devices, types, reads of the host."""

import json
import subprocess
import sys

import pytest

LAYERS, OUTPUT_LAYER = 2, 1
PRODUCTS = 3 * (4 * LAYERS + OUTPUT_LAYER)
"""Q·K·V, out, up and down of a layer, and the output layer: forward, and for both gradients."""

ATTENTION = 6 * LAYERS
"""Scores and their use, forward and backward, in the textbook's form."""


@pytest.fixture(scope="module")
def found():
    """What a process that believes in a GPU has seen, by case."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.trainer.fake_cuda"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", ["adamw", "fp32", "muon", "llama"])
def test_all_of_a_step_is_on_the_gpu_and_kept_in_fp32(found, case):
    assert "error" not in found[case], found[case]["error"]
    assert found[case]["devices"] == ["cuda:0"]
    assert found[case]["hidden"] == "cuda:0"
    assert found[case]["dtypes"] == ["torch.float32"]


def test_a_step_reads_the_gpu_once(found):
    """Its microbatches' losses and the gradient's norm, together, before the update."""
    assert [found[case]["reads"] for case in ("adamw", "muon", "llama")] == [[2], [3], [2]]


def test_products_run_in_bf16_unless_the_recipe_says_fp32(found):
    bf16, fp32 = "torch.bfloat16", "torch.float32"
    assert found["adamw"]["products"] == {bf16: PRODUCTS, fp32: ATTENTION}
    assert found["fp32"]["products"] == {fp32: PRODUCTS + ATTENTION}


def test_masks_are_in_blocks_where_flex_attention_can_take_them(found):
    assert found["masks"] == {"mask": "BlockMask", "hidden": "cuda:0"}
    assert found["narrow masks"] == {"mask": "FakeTensor", "hidden": "cuda:0"}


def test_a_tensor_that_stays_on_the_cpu_is_found(found):
    assert "found at least two devices, cuda:0 and cpu" in found["misplaced"]["error"]
