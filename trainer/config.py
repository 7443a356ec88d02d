"""The `[train]` and `[study]` tables of a recipe (light: imports no torch).

A default is a value that was measured to work at the size of the demo (a model of about a million
parameters on two cores); `docs/design/trainer.md` says how.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from shards.config import did_you_mean
from shards.errors import RecipeError

Positive = Annotated[int, Meta(ge=1)]
Rate = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
NotNegative = Annotated[float, Meta(ge=0)]

DEFINITIONS = {
    "model": "2",
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

    dim: Annotated[int, Meta(ge=8)] = 128
    layers: Positive = 3
    heads: Positive = 2
    kv_heads: Positive | None = None
    mlp_ratio: Rate = 4.0
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

    A batch is learned from in `microbatches` equal parts, one after the other, whose gradients are
    summed in their order: less memory, the same step. The batch of a step whose loss or gradient
    norm is not finite, or lies more than `spike_sigma` standard deviations above those of the last
    128 steps (0: no such rule), is skipped; more than `max_skipped` in a row stop the run.
    `keep_checkpoints` are kept while a run goes on, one when it is done.

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
    max_skipped: Annotated[int, Meta(ge=0)] = 10
    schedule: Literal["wsd", "cosine"] = "wsd"
    warmup: Share = 0.02
    decay: Share = 0.4
    eval_every: Annotated[int, Meta(ge=0)] = 50
    eval_tokens: Positive = 200_000
    curve_tokens: Positive = 10_000
    checkpoint_every: Annotated[int, Meta(ge=0)] = 50
    keep_checkpoints: Positive = 2
    seed: Annotated[int, Meta(ge=0, lt=2**31)] = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    parallel: Literal["none", "ddp", "fsdp2"] = "none"
    rank_timeout_s: Rate = 600.0
    replica_check_every: Annotated[int, Meta(ge=0)] = 100
    prometheus_port: Annotated[int, Meta(ge=0, le=65_535)] = 0
    tensorboard: bool = False
    threads: Positive = 1

    def __post_init__(self) -> None:
        """Check that a batch has equal parts."""
        if self.batch_size % self.microbatches:
            raise ValueError(
                f"batch_size {self.batch_size} (sequences a step) is not divisible by microbatches"
                f" {self.microbatches}"
            )

    @property
    def batch_tokens(self) -> int:
        """Tokens in one step."""
        return self.batch_size * self.sequence_length

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps or -(-self.tokens // self.batch_tokens)


class StudyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The comparison of arms.

    `arms` maps a name to the selection of documents that the arm trains on; every other arm is
    compared with `control`. `valid` selects the validation documents, which no arm may touch.
    Each of `seeds` fixes the initial weights and the order law of one run of every arm.

    More arms follow from these, without a selection of their own (see `trainer/study_arms.py`):

    - `random_like`: for each name, `random-NAME`: documents of the control drawn by hash, with as
      many tokens as NAME has. What beats the control but not its random subset is only smaller.
    - `repeats`: for each R, `repeat-R`: documents of `repeat_of` (default: the control) with a
      share 1/R of the budget's tokens, so that the run reads each R times.

    All runs train on `train.tokens`, so with equal FLOPs. With `budget = "unique"` every arm is
    also cut, by hash, to the same number of tokens: `unique_tokens`, or what the smallest arm has.

    `level` is the chance of calling any difference where there is none, over all arms together.
    `expected_seed_sd` and `expected_document_sd` (bits per byte) are what the power calculation
    before the first run goes by; the defaults are those of the demo's study.
    """

    arms: Annotated[dict[str, str], Meta(min_length=2)] = msgspec.field(
        default_factory=lambda: {
            "raw": "split == 'train'",
            "curated": "split == 'train' and dropped == ''",
        }
    )
    control: str = "raw"
    random_like: list[str] = []
    repeats: list[Annotated[int, Meta(ge=2)]] = []
    repeat_of: str | None = None
    budget: Literal["flops", "unique"] = "flops"
    unique_tokens: Positive | None = None
    valid: str = "split == 'valid' and dropped == ''"
    seeds: Annotated[list[int], Meta(min_length=2)] = msgspec.field(
        default_factory=lambda: [1, 2, 3]
    )
    level: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    bootstrap_samples: Annotated[int, Meta(ge=100)] = 2_000
    expected_seed_sd: Rate = 0.007
    expected_document_sd: Rate = 0.04

    @property
    def arm_names(self) -> list[str]:
        """All arms, those that follow from others included, in the order of the runs."""
        return [
            *self.arms,
            *(f"random-{name}" for name in self.random_like),
            *(f"repeat-{times}" for times in self.repeats),
        ]

    def __post_init__(self) -> None:
        """Check names, seeds and budgets against each other.

        Raises:
            RecipeError: with the key and its value.
        """
        for key, value in (
            ("control", self.control),
            ("repeat_of", self.repeat_of),
            *(("random_like", name) for name in self.random_like),
        ):
            if value is not None and value not in self.arms:
                raise RecipeError(
                    f"study.{key} = {value!r}: not one of study.arms"
                    f"{did_you_mean(value, tuple(self.arms), 'arms')}"
                )
        if repeated := _repeated(self.seeds):
            raise RecipeError(f"study.seeds = {self.seeds}: {repeated} repeats; seeds must differ")
        if repeated := _repeated(self.arm_names):
            raise RecipeError(f"study: two arms are named {repeated!r}; rename or remove one")
        for name in self.arms:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise RecipeError(
                    f"study.arms: {name!r}: a name of letters, digits, '_' and '-', since it names"
                    " a folder"
                )
        if self.control in self.random_like:
            raise RecipeError(
                f"study.random_like = {self.control!r}: is the control, of which a random subset of"
                " equal size is itself"
            )
        if self.budget == "unique" and self.repeats:
            raise RecipeError(
                f"study.repeats = {self.repeats} with study.budget = 'unique': a repeat arm has"
                " fewer unique tokens by definition; use budget = 'flops'"
            )
        if self.budget == "flops" and self.unique_tokens is not None:
            raise RecipeError(
                f"study.unique_tokens = {self.unique_tokens}: only with study.budget = 'unique'"
            )


def _repeated(items: list[Any]) -> Any:
    """Return the first item that occurs twice, None where there is none."""
    return next((item for place, item in enumerate(items) if item in items[:place]), None)
