import msgspec
import pytest
import torch

from trainer import speed
from trainer.config import ModelConfig, TrainConfig
from trainer.sizes import flops_per_token
from trainer.speed import Peak, expected_tokens_per_s, peak

CPU = torch.device("cpu")
CONFIG = TrainConfig(model=ModelConfig(dim=32, heads=2), sequence_length=16, batch_size=4)


def test_the_rate_is_that_of_the_fastest_round(monkeypatch):
    ticks = iter([0.0, 9.0, 10.0, 12.0, 20.0, 25.0])
    monkeypatch.setattr(speed, "ROUNDS", 3)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(ticks))
    assert speed.product_rate(CONFIG, CPU) == 2 * 2 * 64 * 32 * 128 / 2.0


def test_a_large_model_is_measured_by_fewer_rows_on_a_cpu(monkeypatch):
    rows = []
    mm = torch.mm
    monkeypatch.setattr(speed, "MAX_FLOPS_CPU", 4 * 32 * 128 * 5)
    monkeypatch.setattr(speed.torch, "mm", lambda a, b: rows.append(len(a)) or mm(a, b))
    assert speed.product_rate(CONFIG, CPU) > 0
    assert set(rows) == {5}


def test_a_cpu_is_measured_and_a_gpu_has_a_data_sheet(monkeypatch):
    monkeypatch.setattr(speed, "product_rate", lambda config, device: 5.0)
    assert peak(CONFIG, CPU) == (5.0, "measured products of the model's shapes")
    cards = {
        "NVIDIA H100 80GB HBM3": 989e12,
        "NVIDIA H100 PCIe": 756e12,
        "NVIDIA H200": 989e12,
        "NVIDIA A100-SXM4-80GB": 312e12,
        "NVIDIA L40S": 362e12,
        "NVIDIA A10G": 70e12,
        "NVIDIA GeForce RTX 4090": 165e12,
        "Some Card": 5.0,
    }
    for name, flops in cards.items():
        monkeypatch.setattr(speed.torch.cuda, "get_device_name", lambda _, name=name: name)
        found = peak(CONFIG, torch.device("cuda", 0))
        assert found.flops_per_s == flops
        assert (name in found.source) == (flops > 5)
    in_fp32 = msgspec.structs.replace(CONFIG, precision="fp32")  # data sheets say little of it
    assert peak(in_fp32, torch.device("cuda", 0)).flops_per_s == 5.0


def test_the_expected_speed_is_a_share_of_all_peaks():
    flops = flops_per_token(CONFIG.model, 100, 16)
    one = Peak(1000.0 * flops, "measured")
    assert expected_tokens_per_s(CONFIG, 100, one) == pytest.approx(1000 * speed.EXPECTED_SHARE)
    assert expected_tokens_per_s(CONFIG, 100, one, 4) == pytest.approx(4000 * speed.EXPECTED_SHARE)
    sheet = Peak(1000.0 * flops, "data sheet of X")
    assert expected_tokens_per_s(CONFIG, 100, sheet) == pytest.approx(1000 * speed.EXPECTED_MFU)
    twice = msgspec.structs.replace(CONFIG, recompute=True)  # of 4 products instead of 3
    assert expected_tokens_per_s(twice, 100, one) == pytest.approx(750 * speed.EXPECTED_SHARE)
