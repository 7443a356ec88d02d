"""`assay demo`: the whole chain on a corpus built from what the installation carries."""

import json
from importlib import resources
from pathlib import Path

import click

from shards.config import load_recipe
from shards.console import quiet_option


@click.command("demo")
@click.option("--out", default="demo", show_default=True, type=click.Path(), help="Folder.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a recipe key."
)
@quiet_option
def demo_command(out: str, overrides: tuple[str, ...], quiet: bool) -> None:
    """Build a corpus, curate it, train a tokenizer and two arms, and write a report.

    Uses no network and about 2 CPU cores for some minutes; run again, it resumes or skips.
    """
    from pipelines.chain import Stage, chain, check_chain, check_tables, run_chain

    recipe = str(resources.files("pipelines.demo") / "recipe.toml")
    corpus = Path(out) / "corpus"
    overrides = (f"input.paths={json.dumps([str(corpus / '*.jsonl.zst')])}", *overrides)
    extra = ("--quiet",) if quiet else ()
    build = Stage("corpus", ("corpus", "--out", str(corpus), *extra))
    table = load_recipe(recipe, overrides)
    check_tables(table)
    stages = chain(recipe, table, out, overrides, extra)
    # The corpus, which curate checks too, is not there yet; the report has no recipe to check.
    code = check_chain(stages[1:-1]) or run_chain([build, *stages])
    if code == 0:
        _closing_words(Path(out))
    raise SystemExit(code)


def _closing_words(out: Path) -> None:
    """Say what was found and where the report is."""
    from shards.manifest import read_manifest

    total = read_manifest(out / "curated").content.total
    reasons = sorted(total.drops.items(), key=lambda item: -item[1])
    most = ", ".join(f"{reason} {number:,}" for reason, number in reasons[:4])
    study = json.loads((out / "runs" / "study.json").read_text())
    click.echo("")
    click.echo(f"documents  {total.read:,} read = {total.kept:,} kept + {total.dropped:,} dropped")
    click.echo(f"dropped    {most}")
    click.echo(f"verdict    {study['sentence']}")
    click.echo(f"report     {out / 'report.html'}")
