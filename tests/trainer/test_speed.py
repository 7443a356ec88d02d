import pytest
import torch

from trainer import speed
from trainer.config import ModelConfig, TrainConfig
from trainer.sizes import flops_per_token

CPU = torch.device("cpu")
CONFIG = TrainConfig(model=ModelConfig(dim=32, heads=2), sequence_length=16, batch_size=4)


def test_the_rate_is_that_of_the_fastest_round(monkeypatch):
    ticks = iter([0.0, 9.0, 10.0, 12.0, 20.0, 25.0])
    monkeypatch.setattr(speed, "ROUNDS", 3)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(ticks))
    assert speed.product_rate(CONFIG, CPU) == 2 * 2 * 64 * 32 * 128 / 2.0


def test_utilisation_and_expected_speed_are_two_sides_of_one_rate(monkeypatch):
    flops = flops_per_token(CONFIG.model, 100, 16)
    monkeypatch.setattr(speed, "product_rate", lambda config, device: 1000.0 * flops)
    assert speed.utilisation(CONFIG, 100, 400.0, CPU) == pytest.approx(0.4)
    expected = speed.expected_tokens_per_s(CONFIG, 100, CPU)
    assert speed.utilisation(CONFIG, 100, expected, CPU) == pytest.approx(speed.EXPECTED_SHARE)
