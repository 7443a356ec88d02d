"""Are the weights of all ranks the same, bit for bit? If not, whose differ.

Ranks that add the same gradients in the same order keep equal weights for ever; a flipped bit in
one rank's memory makes them drift apart without a word. A hash of all weights shows it.
"""

from collections import Counter

import numpy as np
import xxhash
from torch import nn

from shards.errors import TrainingError
from trainer.ranks import Ranks


def weights_hash(model: nn.Module) -> int:
    """Return the first 48 bits (exact in a float64) of the xxh3-64 of all parameters, in order."""
    digest = xxhash.xxh3_64()
    for parameter in model.parameters():
        digest.update(np.ascontiguousarray(parameter.detach().cpu().numpy()).data)
    return digest.intdigest() >> 16


def check_replicas(ranks: Ranks, model: nn.Module, step: int) -> None:
    """Compare the weights of all ranks.

    Raises:
        TrainingError: they differ; names the ranks in the minority. Of two ranks nobody can say
            which one is right: both are named.
    """
    if ranks.world_size == 1:
        return
    hashes = [int(value) for (value,) in ranks.gather([float(weights_hash(model))])]
    counts = Counter(hashes).most_common(2)
    if len(counts) == 1:
        return
    common, times = counts[0]
    tied = times == counts[1][1]
    odd = [rank for rank, value in enumerate(hashes) if tied or value != common]
    names = ", ".join(map(str, odd))
    raise TrainingError(
        f"step {step}: the weights of rank{'s' if len(odd) > 1 else ''} {names} of"
        f" {ranks.world_size} differ from {'each other' if tied else 'all others'}"
        " (train.replica_check_every): a bit was flipped in memory, or the ranks' kernels differ;"
        " take that machine out, start again and it goes on from the last checkpoint, which was"
        " checked before it was written"
    )
