"""`assay score`: tokens dataset + finished run → tokens dataset with `lm_bpb`."""

from typing import Any

import click

from pipelines.commands.options import dataset_event, job_options, runner_options
from shards.console import quiet_option


@click.command("score")
@click.option("--data", required=True, type=click.Path(), help="Folder of the tokens dataset.")
@click.option("--run", required=True, type=click.Path(), help="Folder of the finished run.")
@click.option("--out", required=True, type=click.Path(), help="Folder of the scored dataset.")
@click.option("--column", default="lm_bpb", show_default=True, help="Name of the new column.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    help="Where the model runs. [default: where it was trained]",
)
@click.option(
    "--run-data",
    type=click.Path(),
    help="The tokens dataset that the run learned from, if its record names no tokenizer.",
)
@runner_options
@quiet_option
def score_command(
    data: str,
    run: str,
    out: str,
    column: str,
    device: Any,
    run_data: str | None,
    workers: int,
    runner: str,
    keep_work: bool,
    quiet: bool,
    events: bool,
    beam_args: tuple[str, ...],
) -> None:
    """Add to a tokens dataset what each document costs under a finished run's model.

    Column lm_bpb: nats of all tokens, EOS included / (ln 2 · raw UTF-8 bytes). `assay train
    --select` and the arms of a study can use it: "lm_bpb < 2.5". What the run was trained on costs
    it less than what it has not seen. Each worker scores a shard at a time on one core. Options
    after `--` go to Beam.
    """
    from pipelines.score import score

    options = job_options(
        workers, runner, beam_args, keep_work=keep_work, quiet=quiet, events=events
    )
    manifest, ran = score(data, run, out, options, column=column, device=device, run_data=run_data)
    if events:
        dataset_event(manifest, out, ran=ran)
        return
    content = manifest.content
    documents = sum(entry.documents for entry in content.shards["tokens"])
    click.echo(
        f"{'scored' if ran else 'up to date:'} {out}: dataset {manifest.dataset_id},"
        f" {documents:,} documents, {column} {content.stats['scores'][column]:.4f} bits per byte of"
        " all together"
    )
