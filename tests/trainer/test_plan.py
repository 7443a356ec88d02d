"""Against published figures (which are reproduced and which merely agree is in the docstrings),
against a simulation, and against what must hold."""

import math

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import RecipeError
from trainer.plan import (
    Cluster,
    Model,
    checkpoint_interval,
    effective_tokens,
    goodput,
    make_plan,
    memory_per_gpu,
    ring_s,
    shard_group,
)
from trainer.plan_cli import plan_command
from trainer.plan_simulate import simulate_goodput
from trainer.presets import PRESETS
from trainer.sizes import flops_per_token, parameter_count

LLAMA_8B = Model(*PRESETS["8b"])


def plan_on(gpus: int, **changes):
    return make_plan(LLAMA_8B, msgspec.structs.replace(Cluster(gpus=gpus), **changes))


def test_mfu_of_torchtitan_on_a100_is_reproduced():
    """docs/performance.md of torchtitan (2024): 2973 tokens/s a GPU are 58.2 % of 312 TFLOP/s. It
    counts the embedding look-up as a product; ours does not, which makes 5 % of FLOPs less."""
    config, vocabulary, length = LLAMA_8B
    flops = flops_per_token(config, vocabulary, length)
    theirs = flops + 6 * vocabulary * config.dim
    assert 2973 * theirs / 312e12 == pytest.approx(0.582, abs=0.001)
    assert 0.94 < flops / theirs < 0.96


def test_mfu_of_torchtitan_on_h100_agrees():
    """Reported: 39.0 % on 8 GPUs, 38.1 % on 128. The first is our default efficiency, so it says
    nothing; the second follows from the collectives, and agrees within one point."""
    assert plan_on(8).mfu == pytest.approx(0.390)
    assert plan_on(128).mfu == pytest.approx(0.381, abs=0.01)


def test_llama_3_fails_as_often_and_gets_as_much_done():
    """Grattafiori et al. 2024: one interruption in 3.09 h on 16,384 GPUs (reproduced: it is where
    our rate comes from), over 90 % effective time (agrees: save and restart times are ours)."""
    plan = plan_on(16_384)
    assert plan.mtbf_h == pytest.approx(3.09, abs=0.01)
    assert 0.90 < plan.goodput < 1


@pytest.mark.parametrize("mtbf", [600.0, 3600.0, 36_000.0])
@pytest.mark.parametrize(("save", "restart"), [(5.0, 60.0), (60.0, 300.0)])
def test_goodput_is_that_of_the_simulation(mtbf, save, restart):
    interval = checkpoint_interval(save, mtbf)
    simulated = simulate_goodput(interval, save, restart, mtbf, intervals=20_000)
    assert goodput(interval, save, restart, mtbf) == pytest.approx(simulated, rel=0.02)


@settings(deadline=None)
@given(
    st.floats(1, 300), st.floats(1000, 1e6), st.floats(0.3, 3).filter(lambda x: abs(x - 1) > 0.1)
)
def test_no_other_interval_is_better(save, mtbf, other):
    best = checkpoint_interval(save, mtbf)
    # Daly's series is cut off: it is within a thousandth of the optimum where δ < M / 3.
    assert goodput(best, save, 0, mtbf) >= goodput(other * best, save, 0, mtbf) * 0.999


def test_young_is_the_limit_of_daly_and_there_is_an_end():
    assert checkpoint_interval(1.0, 1e9) == pytest.approx(math.sqrt(2e9), rel=1e-3)
    assert checkpoint_interval(50.0, 20.0) == 20.0
    assert goodput(1e9, 1.0, 1.0, 1.0) == 0.0


def test_a_ring_moves_all_but_its_own_part():
    assert ring_s(80.0, 8, 10.0, 0.0) == 7.0
    assert ring_s(80.0, 1, 10.0, 5.0) == 0.0
    assert ring_s(0.0, 5, 1.0, 0.5) == 2.0


@given(st.integers(1, 10**6))
def test_groups_divide_the_gpus(gpus):
    assert gpus % shard_group(gpus) == 0
    assert shard_group(gpus) <= 64


def test_memory_is_states_and_what_a_gpu_keeps_for_itself():
    one, many = memory_per_gpu(LLAMA_8B, 8192, 1), memory_per_gpu(LLAMA_8B, 8192, 64)
    parameters = parameter_count(LLAMA_8B.config, LLAMA_8B.vocabulary)
    assert one - many == pytest.approx(16 * parameters * 63 / 64)
    assert not plan_on(1).fits
    assert plan_on(8).fits
    assert memory_per_gpu(LLAMA_8B, 16_384, 64) > many


def test_repeated_tokens_are_worth_less_and_less():
    """Muennighoff et al. 2023: four epochs are nearly as good as fresh data, R* are far from it."""
    assert effective_tokens(50, 100) == 50
    assert effective_tokens(400, 100) > 0.9 * 400
    assert effective_tokens(1e9, 100) == pytest.approx(100 * (1 + 15.39))


def call(*arguments: str):
    return CliRunner().invoke(plan_command, list(arguments))


def test_the_command_prints_json_or_lines():
    result = call("--preset", "8b", "--gpus", "100000", "--json")
    found = msgspec.json.decode(result.stdout)
    keys = {"memory_gb_per_gpu", "step_s", "mfu", "mtbf_h", "checkpoint_interval_s", "goodput"}
    assert keys <= found.keys()
    assert found["mtbf_h"] == pytest.approx(0.507, abs=0.001)
    assert found["goodput"] == pytest.approx(0.821, abs=0.001)
    text = call("--gpus", "100000", "--tokens-owned", "1000000000").stdout
    assert "epochs, worth" in text
    assert "note: batches above" in text
    assert "MORE THAN THERE IS" in call("--gpus", "1", "--memory-gb", "24").stdout


def test_an_unknown_preset_is_named():
    with pytest.raises(RecipeError, match=r"--preset '9b'; did you mean '8b'"):
        raise call("--gpus", "8", "--preset", "9b").exception
