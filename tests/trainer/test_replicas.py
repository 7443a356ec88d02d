import pytest
import torch
from torch import nn

from shards.errors import TrainingError
from trainer.ranks import ALONE, Ranks
from trainer.replicas import check_replicas, weights_hash


class Several(Ranks):
    """Ranks whose hashes are this one's plus the given differences."""

    def __init__(self, *differences):
        self.differences, self.world_size = differences, len(differences)

    def gather(self, values):
        return [[values[0] + difference] for difference in self.differences]


@pytest.fixture
def model():
    torch.manual_seed(1)
    return nn.Linear(3, 5)


def test_every_bit_of_every_weight_changes_the_hash(model):
    seen = {weights_hash(model)}
    for parameter in model.parameters():
        bits = parameter.data.view(torch.int32).view(-1)
        for place in range(len(bits)):
            for bit in (0, 13, 30):
                bits[place] ^= 1 << bit
                seen.add(weights_hash(model))
                bits[place] ^= 1 << bit
    assert len(seen) == 1 + 3 * 20
    assert max(seen) < 2**53  # exact in a float64


def test_the_minority_is_named_and_of_two_both(model):
    check_replicas(ALONE, model, 1)
    check_replicas(Several(0, 0, 0), model, 1)
    with pytest.raises(TrainingError, match=r"step 7: the weights of rank 2 of 4 differ from all"):
        check_replicas(Several(0, 0, 9, 0), model, 7)
    with pytest.raises(TrainingError, match=r"of ranks 0, 1 of 2 differ from each other"):
        check_replicas(Several(0, 1), model, 7)
