"""The `[train]` and `[study]` tables of a recipe (light: imports no torch).

A default is a value that was measured to work at the size of the demo (a model of about a million
parameters on two cores); `docs/design/trainer.md` says how.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1)]
Rate = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
NotNegative = Annotated[float, Meta(ge=0)]

DEFINITIONS = {
    "model": "1",
    "optimizer": "1",
    "loop": "2",
    "evaluation": "1",
    "baselines": "1",
}
"""Version of each definition that changes a result; raise one and finished runs run again."""


class ModelConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=False
):
    """A decoder-only transformer (see `trainer/model.py`); the vocabulary comes from the data.

    `dim` is the width of the residual stream, divided evenly over `heads`; the hidden layer of an
    MLP has `mlp_ratio * dim` units, rounded to a multiple of 8; `tied` shares the embedding with
    the output layer.
    """

    dim: Annotated[int, Meta(ge=8)] = 128
    layers: Positive = 3
    heads: Positive = 2
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

    @property
    def head_dim(self) -> int:
        """Dimensions of one attention head."""
        return self.dim // self.heads

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
    """

    model: ModelConfig = ModelConfig()
    sequence_length: Annotated[int, Meta(ge=2)] = 128
    batch_size: Positive = 16
    tokens: Positive = 250_000
    steps: Positive | None = None
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: Rate = 0.01
    embedding_learning_rate: Rate = 0.03
    weight_decay: NotNegative = 0.1
    grad_clip: NotNegative = 1.0
    schedule: Literal["wsd", "cosine"] = "wsd"
    warmup: Share = 0.02
    decay: Share = 0.4
    eval_every: Annotated[int, Meta(ge=0)] = 50
    eval_tokens: Positive = 200_000
    curve_tokens: Positive = 20_000
    checkpoint_every: Annotated[int, Meta(ge=0)] = 50
    seed: Annotated[int, Meta(ge=0, lt=2**31)] = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Positive = 1

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
    """

    arms: Annotated[dict[str, str], Meta(min_length=2)] = msgspec.field(
        default_factory=lambda: {
            "raw": "split == 'train'",
            "curated": "split == 'train' and dropped == ''",
        }
    )
    control: str = "raw"
    valid: str = "split == 'valid' and dropped == ''"
    seeds: Annotated[list[int], Meta(min_length=2)] = msgspec.field(
        default_factory=lambda: [1, 2, 3]
    )
    level: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    bootstrap_samples: Annotated[int, Meta(ge=100)] = 2_000

    def __post_init__(self) -> None:
        """Check names and seeds against each other."""
        if self.control not in self.arms:
            raise ValueError(f"control {self.control!r} is not one of the arms {list(self.arms)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds} repeat; paired seeds must differ")
        for name in self.arms:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(
                    f"arm {name!r}: a name of letters, digits, '_' and '-', since it names a folder"
                )
