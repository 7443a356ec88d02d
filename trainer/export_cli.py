"""`python -m trainer export`; torch is imported only when it runs."""

from pathlib import Path

import click


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for the model's files."
)
def export_command(run: Path, out: Path) -> None:
    """Write the model of the finished run in the folder RUN as safetensors.

    The files are those of a Qwen3 model: `AutoModelForCausalLM.from_pretrained` of transformers
    loads the folder. The tokenizer stays what it is, a sentencepiece model.
    """
    from trainer.export import CONFIG, WEIGHTS, export_run

    record = export_run(run, out)
    click.echo(
        f"{out / WEIGHTS} and {CONFIG}: {record.parameters:,} parameters,"
        f" {record.bpb:.4f} bits per byte"
    )
