"""`assay plan`: what a run would need on a cluster (imports no torch)."""

import math
from typing import Any

import click
import msgspec

from trainer.plan import (
    CHINCHILLA_TOKENS_PER_PARAMETER,
    LARGEST_GROUP,
    Cluster,
    Model,
    Plan,
    make_plan,
)
from trainer.presets import PRESETS, preset_named
from trainer.show import quantity

LARGEST_BATCH = 16 * 2**20
"""Tokens in the largest batch of Llama 3 405B (Grattafiori et al. 2024, section 3.4.1)."""


MOST_TOKENS = 10**18
"""Some ten thousand times what there is; larger numbers are slips, and leave JSON's integers."""


class Number(click.FloatRange):
    """A finite number from a range, which `nan` passes in click's."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; what is none is a usage error."""
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is not a number from {self.min:g} to {self.max:g}.", param, ctx)
        return found


@click.command("plan")
@click.option("--preset", default="8b", show_default=True, help=f"One of {', '.join(PRESETS)}.")
@click.option("--gpus", required=True, type=click.IntRange(1, 10_000_000), help="GPUs of the job.")
@click.option(
    "--sequence-length",
    type=click.IntRange(2, 1 << 22),
    help="Tokens of a sequence.  [default: preset's]",
)
@click.option(
    "--sequences-per-gpu",
    type=click.IntRange(1, 1 << 16),
    default=1,
    help="On each GPU in a step.",
)
@click.option(
    "--tokens", type=click.IntRange(1, MOST_TOKENS), help="To train on.  [default: 20 a parameter]"
)
@click.option(
    "--tokens-owned", type=click.IntRange(1, MOST_TOKENS), help="Unique tokens that there are."
)
@click.option("--efficiency", type=Number(1e-4, 1), help="Of the kernels.")
@click.option("--peak-tflops", type=Number(1e-3, 1e6), help="Of one GPU, dense.")
@click.option("--memory-gb", type=Number(1e-3, 1e6), help="Of one GPU.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan_command(
    preset: str,
    gpus: int,
    sequence_length: int | None,
    sequences_per_gpu: int,
    tokens: int | None,
    tokens_owned: int | None,
    efficiency: float | None,
    peak_tflops: float | None,
    memory_gb: float | None,
    as_json: bool,
) -> None:
    """Say what training a preset on a cluster would take: memory, time, failures, data.

    The defaults of the cluster are those of H100 GPUs in nodes of eight with 400 Gb/s each.
    """
    found = preset_named(preset, "--preset")
    model = Model(found.model, found.vocabulary, sequence_length or found.sequence_length)
    given = {
        "efficiency": efficiency,
        "peak_flops": None if peak_tflops is None else peak_tflops * 1e12,
        "memory_bytes": None if memory_gb is None else memory_gb * 1e9,
    }
    cluster = msgspec.structs.replace(
        Cluster(gpus=gpus), **{key: value for key, value in given.items() if value is not None}
    )
    plan = make_plan(
        model,
        cluster,
        sequences_per_gpu=sequences_per_gpu,
        tokens=tokens,
        tokens_owned=tokens_owned,
    )
    if as_json:
        click.echo(msgspec.json.encode(plan))
        return
    for line in plan_lines(plan):
        click.echo(line)


def plan_lines(plan: Plan) -> list[str]:
    """Describe a plan to a person."""
    shared = (
        f"states shared by groups of {plan.shard_gpus}"
        if plan.shard_gpus > 1
        else "each with all states"
    )
    lines = [
        f"model:       {quantity(plan.parameters)} parameters on {plan.gpus:,}"
        f" GPU{'s' if plan.gpus > 1 else ''}, {shared}",
        f"memory:      {plan.memory_gb_per_gpu:.1f} GB a GPU"
        + ("" if plan.fits else f", MORE THAN THERE IS: {_remedy(plan)}"),
        f"step:        {duration(plan.step_s)} for {quantity(plan.batch_tokens)} tokens (compute"
        f" {duration(plan.compute_s)}, communication beside it {duration(plan.communication_s)})",
        f"speed:       {quantity(plan.tokens_per_s)} tokens/s, MFU {plan.mfu:.1%}",
        f"failures:    one every {duration(3600 * plan.mtbf_h)}",
        f"checkpoints: one every {duration(plan.checkpoint_interval_s)}, each takes"
        f" {duration(plan.checkpoint_s)}",
        f"goodput:     {plan.goodput:.1%} of the time is kept work",
        f"tokens:      {quantity(plan.tokens)} in {plan.steps:,} steps,"
        f" {duration(86_400 * plan.days)} with failures",
        f"             compute-optimal are {quantity(plan.chinchilla_tokens)},"
        f" {CHINCHILLA_TOKENS_PER_PARAMETER} a parameter (Chinchilla)",
    ]
    if plan.epochs is not None and plan.effective_tokens is not None:
        short = plan.effective_tokens / plan.chinchilla_tokens
        lines.append(
            f"data:        {quantity(plan.tokens_owned or 0)} owned, read {plan.epochs:.2f} times:"
            f" worth {quantity(plan.effective_tokens)} fresh tokens, {short:.0%} of compute-optimal"
        )
    if plan.batch_tokens > LARGEST_BATCH:
        lines.append(
            f"note:        batches above about {quantity(LARGEST_BATCH)} tokens stop paying off; so"
            " many GPUs need tensor, pipeline or context parallelism, which this plan does not know"
        )
    return lines


def _remedy(plan: Plan) -> str:
    """Say which number of GPUs would share the states more widely, if one would."""
    if plan.shard_gpus == LARGEST_GROUP:
        return "use shorter sequences, or GPUs with more memory"
    if plan.gpus > LARGEST_GROUP:
        return f"use a number of GPUs that is a multiple of {LARGEST_GROUP}, or shorter sequences"
    return "use more GPUs or shorter sequences"


def duration(seconds: float) -> str:
    """Write a time in the unit that a person would use."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    sizes = {"days": 86_400, "h": 3600, "min": 60, "s": 1}
    unit = next(unit for unit, size in sizes.items() if seconds >= 2 * size or unit == "s")
    value = seconds / sizes[unit]
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
