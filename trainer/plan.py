"""What a training run would need on a cluster, by arithmetic (light: imports no torch).

Data parallelism with sharded states (ZeRO-3/FSDP, Rajbhandari et al. 2020) inside groups of GPUs
and replicas of these groups (HSDP), activations recomputed in the backward pass, bf16 products with
fp32 states. Communication runs beside the products and shows only where it is longer. What it
leaves out: tensor, pipeline and context parallelism, stragglers, congestion.
"""

import math
from typing import NamedTuple

import msgspec

from trainer.config import ModelConfig
from trainer.sizes import flops_per_token, loss_bytes, matrices_per_layer, parameter_count

STATE_BYTES = 16
"""Bytes a parameter in fp32: weight, gradient, two moments of AdamW."""

CHECKPOINT_BYTES = 12
"""Bytes a parameter of a checkpoint: weight and two moments."""

CHINCHILLA_TOKENS_PER_PARAMETER = 20
"""Hoffmann et al. 2022, table A3: compute-optimal at most sizes."""

R_D_STAR = 15.39
"""Muennighoff et al. 2023, "Scaling Data-Constrained Language Models", section 5: repetitions after
which a repeated token has lost 1 − 1/e of its value."""


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs and what joins them; the defaults are an H100 SXM cluster.

    peak_flops: dense bf16 products, from NVIDIA's data sheet (989 TFLOP/s).
    efficiency: share of the peak that the model's kernels reach while nothing else holds them up;
        39.0 % is what torchtitan reports for Llama 3 8B with torch.compile on 8 H100.
    node_bytes_s, network_bytes_s: one direction, for each GPU: NVLink 4 (450 GB/s), a 400 Gb/s NIC.
        A group of whole nodes runs a ring through each NIC, so that they add up (NCCL's channels).
    latency_s: of one hop, an assumption; on NVLink it is less, between racks more.
    gpu_mtbf_h: mean GPU-hours between interruptions of the whole job. Llama 3 405B had 419 that
        were not planned in 54 days of 16,384 GPUs (Grattafiori et al. 2024, section 3.3.4).
    storage_bytes_s: at which a checkpoint leaves the GPUs while the job stands still.
    restart_s: from an interruption to the first step of the next start.
    """

    gpus: int
    gpus_per_node: int = 8
    memory_bytes: float = 80e9
    peak_flops: float = 989e12
    efficiency: float = 0.39
    node_bytes_s: float = 450e9
    network_bytes_s: float = 50e9
    latency_s: float = 5e-6
    gpu_mtbf_h: float = 54 * 24 / 419 * 16_384
    storage_bytes_s: float = 100e9
    restart_s: float = 300.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a plan; what `assay plan --json` prints.

    `goodput` is the share of wall-clock time that ends up in the model; `epochs` and
    `effective_tokens` are None without tokens owned. `days` are of wall-clock time, with failures.
    """

    parameters: int
    gpus: int
    shard_gpus: int
    batch_tokens: int
    memory_gb_per_gpu: float
    fits: bool
    compute_s: float
    communication_s: float
    step_s: float
    tokens_per_s: float
    mfu: float
    mtbf_h: float
    checkpoint_s: float
    checkpoint_interval_s: float
    goodput: float
    chinchilla_tokens: int
    tokens: int
    steps: int
    days: float
    tokens_owned: int | None
    epochs: float | None
    effective_tokens: float | None


class Model(NamedTuple):
    """What is trained."""

    config: ModelConfig
    vocabulary: int
    sequence_length: int


def make_plan(
    model: Model,
    cluster: Cluster,
    *,
    sequences_per_gpu: int = 1,
    tokens: int | None = None,
    tokens_owned: int | None = None,
) -> Plan:
    """Plan a run of `tokens` (default: compute-optimal by Chinchilla) on all GPUs of a cluster."""
    shard = shard_group(cluster.gpus, cluster.gpus_per_node)
    parameters = parameter_count(model.config, model.vocabulary)
    per_gpu = sequences_per_gpu * model.sequence_length
    batch = per_gpu * cluster.gpus
    flops = flops_per_token(model.config, model.vocabulary, model.sequence_length)
    compute = flops * per_gpu / (cluster.peak_flops * cluster.efficiency)
    communication = communication_s(parameters, model.config.layers, shard, cluster)
    step = max(compute, communication)  # they run side by side; the longer one shows
    memory = memory_per_gpu(model, per_gpu, shard)
    mtbf_s = 3600 * cluster.gpu_mtbf_h / cluster.gpus
    save = CHECKPOINT_BYTES * parameters / cluster.storage_bytes_s
    interval = checkpoint_interval(save, mtbf_s)
    good = goodput(interval, save, cluster.restart_s, mtbf_s)
    needed = CHINCHILLA_TOKENS_PER_PARAMETER * parameters
    budget = tokens or needed
    steps = -(-budget // batch)
    return Plan(
        parameters=parameters,
        gpus=cluster.gpus,
        shard_gpus=shard,
        batch_tokens=batch,
        memory_gb_per_gpu=memory / 1e9,
        fits=memory < cluster.memory_bytes,
        compute_s=compute,
        communication_s=communication,
        step_s=step,
        tokens_per_s=batch / step,
        mfu=flops * per_gpu / (step * cluster.peak_flops),
        mtbf_h=mtbf_s / 3600,
        checkpoint_s=save,
        checkpoint_interval_s=interval,
        goodput=good,
        chinchilla_tokens=needed,
        tokens=budget,
        steps=steps,
        days=steps * step / good / 86_400 if good else math.inf,
        tokens_owned=tokens_owned,
        epochs=None if tokens_owned is None else budget / tokens_owned,
        effective_tokens=None if tokens_owned is None else effective_tokens(budget, tokens_owned),
    )


LARGEST_GROUP = 64
"""GPUs that share one copy of the states, at most."""


def shard_group(gpus: int, gpus_per_node: int = 8, most: int = LARGEST_GROUP) -> int:
    """Return how many GPUs share one copy of the states.

    The largest number up to `most` that divides them into equal groups of whole nodes, or into
    equal groups at all where that needs fewer.
    """
    sizes = [size for size in range(1, min(most, gpus) + 1) if gpus % size == 0]
    whole = [size for size in sizes if size % gpus_per_node == 0]
    return (whole or sizes)[-1]


def memory_per_gpu(model: Model, tokens: int, shard: int) -> float:
    """Return bytes on one GPU: its share of the states, gathered weights, activations.

    Two layers are there in bf16 (one at work, one on its way), with the larger of the embeddings
    beside them. Activations: the bf16 input of every layer, what one layer keeps (10 D + 3 F values
    as in `trainer.sizes.memory_bytes`), and a chunk of logits.
    """
    config = model.config
    hidden = config.hidden * (2 if config.activation == "swiglu" else 1)
    states = STATE_BYTES * parameter_count(config, model.vocabulary) / shard
    gathered = 2 * (2 * matrices_per_layer(config) + model.vocabulary * config.dim)
    kept = 2 * tokens * (config.layers * config.dim + 10 * config.dim + 3 * hidden)
    return states + gathered + kept + loss_bytes(tokens, model.vocabulary)


def communication_s(parameters: int, layers: int, shard: int, cluster: Cluster) -> float:
    """Return seconds of a step's collectives; each layer and the embeddings have their own.

    In the group, by rings: all-gather of bf16 weights forward and backward, reduce-scatter of fp32
    gradients. Between groups: all-reduce of a GPU's share of the gradients, through its own NIC.
    """
    parts = layers + 1
    one_node = shard <= cluster.gpus_per_node
    nics = cluster.gpus_per_node * cluster.network_bytes_s
    inside = cluster.node_bytes_s if one_node else min(cluster.node_bytes_s, nics)
    gathers = ring_s((2 + 2 + 4) * parameters, shard, inside, 3 * parts * cluster.latency_s)
    within_node = cluster.gpus <= cluster.gpus_per_node
    between = cluster.node_bytes_s if within_node else cluster.network_bytes_s
    share = 4 * parameters / shard / parts
    reduce = all_reduce_s(share, cluster.gpus // shard, between, cluster.latency_s)
    return gathers + parts * reduce


def all_reduce_s(size: float, members: int, bytes_s: float, latency_s: float) -> float:
    """Return seconds of an all-reduce of `size` bytes over n members, by ring or by tree.

    A ring is a reduce-scatter and an all-gather; two trees (Sanders, Speck & Träff 2009, NCCL since
    2.4) move the same bytes in 2 · log₂ n hops, which counts from some hundred members on.
    """
    hops = 2 * math.log2(members)
    return min(
        ring_s(2 * size, members, bytes_s, 2 * latency_s),
        hops * latency_s + (2 * size / bytes_s if members > 1 else 0),
    )


def ring_s(size: float, members: int, bytes_s: float, latency_s: float) -> float:
    """Return seconds in which `size` bytes go once round a ring of n members.

    (n − 1)/n · size / bandwidth + (n − 1) · latency (Patarasuk & Yuan 2009).
    """
    return (members - 1) * (size / members / bytes_s + latency_s)


def checkpoint_interval(save_s: float, mtbf_s: float) -> float:
    """Return the seconds of work between two checkpoints that cost the least (Daly 2006, eq. 37).

    Young's (1974) first-order √(2 δ M) with two more terms; M itself where saving takes over 2 M.
    """
    if save_s >= 2 * mtbf_s:
        return mtbf_s
    ratio = save_s / (2 * mtbf_s)
    young = math.sqrt(2 * save_s * mtbf_s)
    return young * (1 + math.sqrt(ratio) / 3 + ratio / 9) - save_s


def goodput(interval_s: float, save_s: float, restart_s: float, mtbf_s: float) -> float:
    """Return the share of wall-clock time that is kept work, failures being a Poisson process.

    Daly (2006), eq. 20: τ of work take M · e^(R/M) · (e^((τ + δ)/M) − 1) on average, since work,
    saving and restarting may all fail.
    """
    exponent = (interval_s + save_s) / mtbf_s
    if exponent > 500 or restart_s / mtbf_s > 500:
        return 0.0
    return interval_s / (mtbf_s * math.exp(restart_s / mtbf_s) * math.expm1(exponent))


def effective_tokens(tokens: float, owned: float) -> float:
    """Return how many fresh tokens `tokens` out of `owned` are worth (Muennighoff et al., eq. 5).

    D' = U + U · R* · (1 − e^(−R/R*)) with R = tokens / U − 1 repetitions.
    """
    if tokens <= owned:
        return tokens
    return owned + owned * R_D_STAR * -math.expm1(-(tokens / owned - 1) / R_D_STAR)
