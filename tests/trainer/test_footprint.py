import msgspec
import pytest
import torch

from shards.errors import RecipeError
from trainer.config import TrainConfig
from trainer.footprint import footprint, footprint_line, size
from trainer.model import Transformer
from trainer.presets import PRESETS
from trainer.ranks import check_ranks
from trainer.sizes import parameter_count

BIG = PRESETS["8b"]
CONFIG = TrainConfig(
    model=BIG.model, sequence_length=8192, batch_size=64, microbatches=64, optimizer="adamw"
)
N = parameter_count(BIG.model, BIG.vocabulary)


def of(world_size, **changes):
    config = msgspec.structs.replace(CONFIG, **changes)
    return footprint(config, BIG.vocabulary, world_size, gpu=True)


def test_adamw_in_fp32_takes_sixteen_bytes_a_parameter():
    found = of(1)
    assert found.weights + found.gradients + found.moments == 16 * N
    assert found.copy == 12 * N
    assert found.device == sum(found) - found.copy


def test_every_rank_of_ddp_has_all_and_one_of_fsdp2_its_share():
    alone, copies, shares = of(1), of(8, parallel="ddp"), of(8, parallel="fsdp2")
    assert copies[:4] == alone[:4]
    assert copies.working > alone.working  # it sends gradients
    for name in ("weights", "gradients", "moments", "copy"):
        assert getattr(shares, name) == pytest.approx(getattr(alone, name) / 8, rel=1e-6)
    assert shares.activations == alone.activations
    assert shares.device < copies.device
    assert of(64, parallel="fsdp2").device < shares.device


def test_what_changes_what():
    assert of(1, optimizer="muon").moments < of(1).moments
    assert of(1, optimizer="muon").working > of(1).working
    assert of(64, optimizer="muon", parallel="fsdp2").working < 12e9  # no rank has all updates
    assert of(1, precision="fp32").activations == 2 * of(1).activations
    assert of(1, microbatches=32).activations == 2 * of(1).activations
    assert of(1, checkpoint_async=False).copy == 0
    assert of(1).logits == 12 * 2**27  # 8192 positions have more logits than that
    assert footprint(CONFIG, 100, gpu=True).logits == 12 * 8192 * 100
    assert footprint(CONFIG, BIG.vocabulary).logits == 0


def test_recomputation_keeps_one_layer_and_the_input_of_each():
    model, positions = BIG.model, CONFIG.batch_tokens // CONFIG.microbatches
    whole, narrow = of(1).activations, of(1, recompute=True)
    inputs = 4 * positions * model.layers * model.dim
    assert narrow.activations == whole // model.layers + inputs
    assert of(1)[:3] == narrow[:3]
    line = footprint_line(msgspec.structs.replace(CONFIG, recompute=True), BIG.vocabulary, gpu=True)
    assert f"activations {size(narrow.activations)}" in line


def test_recomputed_blocks_keep_the_inputs_that_the_estimate_counts():
    B, T, model = 2, 16, TrainConfig().model
    network = Transformer(model, 64, T, recompute=True)
    network.initialise(1)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        network.hidden(torch.zeros(B, T, dtype=torch.int64))
    assert sum(n == B * T * model.dim for n in kept) >= model.layers
    assert sum(kept) < 1.5 * B * T * model.dim * (model.layers + 1)


def test_the_line_says_how_many_ranks_and_what_for():
    line = footprint_line(msgspec.structs.replace(CONFIG, parallel="fsdp2"), BIG.vocabulary, 8)
    assert line.startswith("memory per rank (8 ranks, fsdp2): about ")
    assert f"weights {size(4 * N / 8)}" in line
    assert "(1 rank)" in footprint_line(CONFIG, BIG.vocabulary)
    with pytest.raises(RecipeError, match="not divisible by the 7 ranks"):
        check_ranks(msgspec.structs.replace(CONFIG, parallel="ddp"), 7)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1536, "1.5 KiB"), (1023, "1023 B"), (3 << 40, "3 TiB"), (1.1e9, "1.02 GiB")],
)
def test_sizes_are_readable(count, text):
    assert size(count) == text
