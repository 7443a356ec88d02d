"""FlexAttention runs eagerly on a CPU, forward only: its mask and values against those of SDPA."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import ModelConfig
from trainer.documents import attend, block_mask, dense_mask, document_mask, document_numbers
from trainer.model import Transformer

EOS, T = 0, 12
rows = st.lists(st.lists(st.integers(0, 3), min_size=T, max_size=T), min_size=1, max_size=3)


def visible(row: list[int], query: int, key: int) -> bool:
    """The rule in words: not later, and no document begins between the two."""
    return key <= query and EOS not in row[key + 1 : query + 1]


@given(rows)
def test_a_position_sees_its_own_document_up_to_itself(found):
    mask = document_mask(torch.tensor(found), EOS, 8)
    assert mask.shape == (len(found), 1, T, T)
    for row, of_row in zip(found, mask[:, 0].tolist(), strict=True):
        assert of_row == [[visible(row, q, k) for k in range(T)] for q in range(T)]


def test_an_eos_begins_the_next_document():
    assert document_numbers(torch.tensor([[7, EOS, 5, 5, EOS, EOS]]), EOS).tolist() == [
        [0, 1, 1, 1, 2, 3]
    ]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("length", "kv_heads"), [(12, 4), (300, 2)])
def test_flex_attention_equals_the_reference(length, kv_heads):
    generator = torch.Generator().manual_seed(1)
    numbers = document_numbers(torch.randint(0, 9, (2, length), generator=generator), EOS)
    q = torch.randn(2, 4, length, 8, generator=generator)
    k, v = torch.randn(2, 2, kv_heads, length, 8, generator=generator).unbind()
    grouped = kv_heads != 4
    flex = attend(q, k, v, block_mask(numbers), grouped=grouped)
    reference = attend(q, k, v, dense_mask(numbers), grouped=grouped)
    assert torch.allclose(flex, reference, atol=1e-5)
    assert not torch.allclose(flex, attend(q, k, v, None, grouped=grouped), atol=1e-2)


@pytest.mark.parametrize("kv_heads", [None, 2])
def test_the_model_gives_each_document_what_it_gives_it_alone(kv_heads):
    config = ModelConfig(dim=32, layers=2, heads=4, kv_heads=kv_heads)
    model = Transformer(config, 9, T, eos=EOS)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3, generator=generator)
    first, second = torch.randint(1, 9, (2, 1, T // 2), generator=generator)
    first[:, 0] = second[:, 0] = EOS
    together = model(torch.cat([first, second], dim=1))
    apart = torch.cat([model(first), model(second)], dim=1)
    assert torch.allclose(together, apart, atol=1e-5)
    model.eos = None
    assert not torch.allclose(model(torch.cat([first, second], dim=1)), apart, atol=1e-3)
