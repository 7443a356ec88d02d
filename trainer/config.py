"""The `[train]` table of a recipe (light: imports no torch).

A default is a value that was measured to work at the size of the demo (a model of about a million
parameters on two cores); `docs/design/trainer.md` says how.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from shards.errors import RecipeError
from shards.mixture_config import MixtureConfig, PackingName

Positive = Annotated[int, Meta(ge=1, le=1 << 48)]
# A bound on floats refuses inf too, which TOML can say; float32 holds no more than 3.4e38.
Rate = Annotated[float, Meta(gt=0, le=1e38)]
Share = Annotated[float, Meta(ge=0, le=1)]
NotNegative = Annotated[float, Meta(ge=0, le=1e38)]
Seconds = Annotated[float, Meta(gt=0, le=1e6)]
"""At most twelve days: what sockets and stores take as a timeout ends far below 1e38."""

LEAST_TIMEOUT_S = 2.0
"""What it takes to see that a rank's beats stand still (`watch.SILENT_SECONDS`)."""

DEFINITIONS = {
    "model": "4",
    "optimizer": "2",
    "loop": "3",
    "evaluation": "2",
    "baselines": "1",
}
"""Version of each definition that changes a result; raise one and finished runs run again."""


class ModelConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=False
):
    """A decoder-only transformer (see `trainer/model.py`); the vocabulary comes from the data.

    `dim` is the width of the residual stream, divided evenly over `heads`, which share `kv_heads`
    heads of keys and values (GQA, Ainslie et al. 2023; one each by default); the hidden layer of an
    MLP has `mlp_ratio * dim` units, rounded to a multiple of 8; `tied` shares the embedding with
    the output layer.
    """

    dim: Annotated[int, Meta(ge=8, le=1 << 24)] = 128
    layers: Annotated[int, Meta(ge=1, le=1 << 16)] = 3
    heads: Positive = 2
    kv_heads: Positive | None = None
    mlp_ratio: Annotated[float, Meta(gt=0, le=1024)] = 4.0
    activation: Literal["relu2", "swiglu"] = "relu2"
    tied: bool = False
    rope_base: Rate = 10_000.0

    def __post_init__(self) -> None:
        """Check that heads divide the width into even parts (RoPE rotates pairs)."""
        if self.dim % self.heads or (self.dim // self.heads) % 2:
            raise ValueError(
                f"dim {self.dim} must be an even multiple of heads {self.heads}:"
                " RoPE rotates pairs of each head's dimensions"
            )
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")

    @property
    def head_dim(self) -> int:
        """Dimensions of one attention head."""
        return self.dim // self.heads

    @property
    def kv_dim(self) -> int:
        """Width of all keys, and of all values."""
        return (self.kv_heads or self.heads) * self.head_dim

    @property
    def hidden(self) -> int:
        """Units in an MLP's hidden layer."""
        return max(8, round(self.mlp_ratio * self.dim / 8) * 8)


class TrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One training run.

    A step takes `batch_size` sequences of `sequence_length` tokens. The budget is `tokens`, rounded
    up to whole steps, unless `steps` is given. `learning_rate` is that of the hidden matrices (by
    `optimizer`), `embedding_learning_rate` that of everything else, which AdamW always trains.
    `warmup` and `decay` are shares of the budget. The final score comes from validation documents
    of at most `eval_tokens` tokens; the points of the curve, every `eval_every` steps, from the
    first of these that fit into `curve_tokens`, the same each time. `threads` belongs to the recipe
    and not to the machine, because the order of a floating-point sum may follow the number of
    threads.

    Documents are cut out of one stream every `sequence_length` tokens, or with `packing =
    "best-fit"` put whole into rows of that length (`shards/packing.py`). `mixture` reads sources by
    weights that may change on the way (`shards/mixture_config.py`). With `window_mb` above 0 only
    so many MiB of tokens are mixed at a time: for remote data that is larger than its cache.

    A batch is learned from in `microbatches` equal parts, one after the other, whose gradients are
    summed in their order: less memory, the same step. The batch of a step whose loss or gradient
    norm is not finite, or lies more than `spike_sigma` standard deviations above those of the last
    128 steps (0: no such rule), is skipped; more than `max_skipped` in a row stop the run. With
    `spike = "rollback"` such a spike also undoes the updates since the last multiple of
    `checkpoint_every`, so that all batches since then are left out (`trainer/history.py`).
    `keep_checkpoints` are kept while a run goes on, one when it is done. With `checkpoint_async`
    they are written while the run goes on, from a copy of weights and optimisers in main memory.

    Products of matrices run in `precision`: "auto" is bf16 on a GPU and fp32 on a CPU; everything
    else is fp32. `compile` has torch compile each block, which pays on a GPU. With `document_masks`
    attention ends at the border of a document (`trainer/documents.py`), and with `recompute` a
    block is computed again in the backward pass instead of kept: less memory, a third more time.

    With `parallel` a run may be made by as many ranks as divide `microbatches` (`torchrun`); the
    result does not depend on their number. With "ddp" each has all weights, with "fsdp2" a share of
    weights, gradients and optimisers. A rank that the others wait for longer than
    `rank_timeout_s` ends the job. The ranks' weights are compared every `replica_check_every` steps
    (0: never) and before each checkpoint.

    `prometheus_port` (0: none) answers on loopback with the numbers of the last step, `tensorboard`
    writes them to event files in the run's folder.
    """

    model: ModelConfig = ModelConfig()
    sequence_length: Annotated[int, Meta(ge=2)] = 128
    batch_size: Positive = 16
    microbatches: Positive = 1
    tokens: Positive = 250_000
    steps: Positive | None = None
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: Rate = 0.01
    embedding_learning_rate: Rate = 0.03
    weight_decay: NotNegative = 0.1
    grad_clip: NotNegative = 1.0
    spike_sigma: NotNegative = 0.0
    spike: Literal["skip", "rollback"] = "skip"
    max_skipped: Annotated[int, Meta(ge=0)] = 10
    schedule: Literal["wsd", "cosine"] = "wsd"
    warmup: Share = 0.02
    decay: Share = 0.4
    eval_every: Annotated[int, Meta(ge=0)] = 50
    eval_tokens: Positive = 200_000
    curve_tokens: Positive = 10_000
    checkpoint_every: Annotated[int, Meta(ge=0)] = 50
    checkpoint_async: bool = True
    keep_checkpoints: Positive = 2
    seed: Annotated[int, Meta(ge=0, lt=2**31)] = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    document_masks: bool = False
    recompute: bool = False
    parallel: Literal["none", "ddp", "fsdp2"] = "none"
    rank_timeout_s: Seconds = 600.0
    replica_check_every: Annotated[int, Meta(ge=0)] = 100
    prometheus_port: Annotated[int, Meta(ge=0, le=65_535)] = 0
    tensorboard: bool = False
    threads: Annotated[int, Meta(ge=1, le=4096)] = 1
    packing: PackingName = "none"
    window_mb: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    mixture: MixtureConfig | None = None

    def __post_init__(self) -> None:
        """Check what no single value shows."""
        if self.batch_size % self.microbatches:
            raise ValueError(
                f"batch_size {self.batch_size} (sequences a step) is not divisible by microbatches"
                f" {self.microbatches}"
            )
        if self.spike == "rollback" and not (self.spike_sigma and self.checkpoint_every):
            raise ValueError(
                f"spike 'rollback' with spike_sigma {self.spike_sigma} and checkpoint_every"
                f" {self.checkpoint_every}: it goes back to a checkpoint when a step is a spike, so"
                " both must be above 0"
            )
        if self.packing != "none" and self.window_mb:
            raise ValueError(
                f"packing {self.packing!r} with window_mb {self.window_mb}: packed rows hold"
                " documents from everywhere, so they have no windows; leave one of the two out"
            )

    @property
    def batch_tokens(self) -> int:
        """Tokens in one step."""
        return self.batch_size * self.sequence_length

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps or -(-self.tokens // self.batch_tokens)


def check_train(config: TrainConfig) -> None:
    """Refuse settings that a recipe must not ask for, though records of earlier runs may hold them.

    Raises:
        RecipeError: with the keys and their values.
    """
    if config.schedule == "wsd" and config.warmup + config.decay > 1 + 1e-9:
        raise RecipeError(
            f"train.warmup = {config.warmup:g}, train.decay = {config.decay:g}: with schedule"
            " 'wsd' they are shares of the steps, and more than all of them: the rate would jump"
            " where the two meet"
        )
    if config.rank_timeout_s < LEAST_TIMEOUT_S:
        raise RecipeError(
            f"train.rank_timeout_s = {config.rank_timeout_s:g}: must be at least"
            f" {LEAST_TIMEOUT_S:g}, or ranks that work would be taken for hung ones"
        )
