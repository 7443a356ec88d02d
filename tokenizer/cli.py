"""`assay tokenizer`: train, inspect and compare."""

from pathlib import Path
from typing import Any

import click
import msgspec

from shards.config import decode, load_recipe
from shards.console import console, quiet_option, recipe_options
from tokenizer.config import TokenizerConfig
from tokenizer.folder import TokenizerInfo, read_info

_WIDEST = 10_000
"""Columns of a screen on which every table has its natural width."""


@click.group("tokenizer")
def tokenizer_command() -> None:
    """Train, inspect and compare lossless tokenizers."""


@tokenizer_command.command("train")
@recipe_options
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Curated dataset.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@quiet_option
def train_command(
    recipe: str, overrides: tuple[str, ...], dry_run: bool, data: Path, out: Path, quiet: bool
) -> None:
    """Train a BPE tokenizer on a sample of the kept training documents."""
    config = decode(load_recipe(recipe, overrides), "tokenizer", TokenizerConfig)
    if dry_run:
        does = f"keep {out}, which is up to date" if _is_current(data, out, config) else "train"
        click.echo(f"tokenizer: would {does}: {msgspec.json.encode(config).decode()}")
        return
    from tokenizer.job import train_tokenizer

    was_there = _is_current(data, out, config)
    if quiet:
        info = train_tokenizer(data, out, config)
    else:
        with console.status("tokenizer") as status:
            info = train_tokenizer(
                data, out, config, progress=lambda text: status.update(f"tokenizer: {text}")
            )
    click.echo(
        f"{'up to date: ' if was_there else ''}tokenizer {out}: {info.vocab_size:,} pieces"
        f" ({info.config.model_type}) from {info.sample.documents:,} documents,"
        f" {info.sample.bytes / 1e6:.1f} MB; pieces {info.pieces_hash[:12]}"
    )


def _is_current(data: Path, out: Path, config: TokenizerConfig) -> bool:
    """Tell whether training would be skipped; `data` need not be there yet in a dry run."""
    from shards.manifest import MANIFEST, read_manifest
    from tokenizer.folder import current_info
    from tokenizer.job import tokenizer_key

    if not (data / MANIFEST).exists():
        return False
    return current_info(out, tokenizer_key(read_manifest(data), config)) is not None


@tokenizer_command.command("inspect")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect_command(folder: Path, as_json: bool) -> None:
    """Show what a tokenizer is, where it came from, and some of its pieces."""
    from tokenizer.model import Tokenizer

    info = read_info(folder)
    facts = summary(info, Tokenizer.load(folder).piece_bytes)
    if as_json:
        click.echo(msgspec.json.encode(facts, order="sorted"))
        return
    click.echo(f"tokenizer   {folder}: {info.config.model_type}, {info.vocab_size:,} pieces")
    click.echo(f"trained on  dataset {info.dataset_id}, {info.sample.documents:,} documents,")
    click.echo(f"            {info.sample.bytes / 1e6:.1f} MB (share {info.sample.share:.3g})")
    click.echo(f"special ids {', '.join(f'{k} {v}' for k, v in info.special_ids.items())}")
    click.echo(f"piece       {facts['piece_bytes_mean']:.2f} bytes on average")
    click.echo(f"longest     {' '.join(map(repr, facts['longest']))}")
    click.echo(f"first       {' '.join(map(repr, facts['first']))}")
    click.echo(f"sha256      {info.sha256}")
    click.echo(f"pieces hash {info.pieces_hash}")


@tokenizer_command.command("compare")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Curated dataset to encode.")
@click.option(
    "--text",
    "texts",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Text file to encode instead, as one document (repeatable).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare_command(
    a: Path, b: Path, data: Path | None, texts: tuple[Path, ...], as_json: bool
) -> None:
    """Compare two tokenizers: bytes per token and tokens per word, by source and language.

    A and B are tokenizer folders or sentencepiece models. Documents whose tokens do not spell
    their text count as failures. Without --data and --text only the vocabularies are compared.
    """
    from rich.console import Console

    from tokenizer.compare import compare, dataset_tables, file_tables
    from tokenizer.compare_table import render
    from tokenizer.model import Tokenizer

    if data and texts:
        raise click.UsageError("give --data or --text, not both")
    tables = dataset_tables(data) if data else file_tables(texts)
    found = compare(Tokenizer.load(a, lossy=True), Tokenizer.load(b, lossy=True), tables)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        table, screen = render(found), Console(highlight=False)
        # A name is never cut or broken: where the screen is too narrow, lines are longer.
        needed = screen.measure(table, options=screen.options.update(width=_WIDEST)).maximum
        screen.width = max(screen.width, needed)
        screen.print(table)


def summary(info: TokenizerInfo, piece_bytes: list[bytes]) -> dict[str, Any]:
    """Return `tokenizer.json`'s fields with the mean length of pieces, the longest and the first.

    `piece_bytes` holds what each id stands for; special ids and byte pieces come first.
    """
    pieces = piece_bytes[len(info.special_ids) + 256 :]
    shown = [piece.decode("utf-8", errors="replace") for piece in pieces]
    plain: dict[str, Any] = msgspec.to_builtins(info)
    return {
        **plain,
        "piece_bytes_mean": sum(map(len, pieces)) / max(1, len(pieces)),
        "longest": sorted(shown, key=lambda piece: (-len(piece), piece))[:8],
        "first": shown[:16],
    }
