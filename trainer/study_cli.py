"""`assay study show`, `compare`, `suggest`, `fit`: what studies found, from their records alone."""

from pathlib import Path

import click
import msgspec

from shards.atomic import write_atomic
from shards.console import console
from shards.errors import CorruptError, DatasetError, TrainingError
from trainer.records import STUDY, StudyRecord, read_record
from trainer.study_records import BEFORE

_FOLDER = click.Path(path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.command("show")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@_JSON
@click.option("--markdown", is_flag=True, help="Print the whole study as Markdown.")
def show_command(folder: Path, as_json: bool, markdown: bool) -> None:
    """Show what the study in DIR (a study's --out, or a chain's) found."""
    from trainer.show import study_summary, study_table
    from trainer.study_contrasts import contrast_table
    from trainer.study_controls import caution
    from trainer.study_report import study_markdown
    from trainer.study_sections import prediction_words

    record = read_study(folder)
    if as_json:
        click.echo(msgspec.json.encode(study_summary(record)))
    elif markdown:
        click.echo(study_markdown(record), nl=False)
    else:
        console.print(study_table(record))
        if record.contrasts:
            console.print(contrast_table(record.contrasts))
        click.echo(record.sentence)
        lacking = caution(record.arms, record.study)
        if lacking not in record.sentence:  # an inconclusive one, or of an older study
            click.echo(lacking)
        if record.prediction:
            click.echo(f"Prediction: {prediction_words(record.prediction)}.")


@click.command("suggest")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the recipe to this file."
)
@_JSON
def suggest_command(folder: Path, out: Path | None, as_json: bool) -> None:
    """Suggest the next mixture from the study in DIR, as a recipe that tests it on fresh seeds.

    Without --out and --json the recipe is printed.
    """
    from trainer.study_suggest import recipe_text, suggest, suggestion_summary, suggestion_words

    record = read_study(folder)
    try:
        found = suggest(record)
    except TrainingError as error:
        raise TrainingError(f"{folder}: {error}") from None
    text = recipe_text(record, found)
    if out is not None:
        write_atomic(out, text.encode())
    if as_json:
        click.echo(msgspec.json.encode(suggestion_summary(record, found)))
        return
    if out is None:
        click.echo(text, nl=False)
    console.print(suggestion_words(record, found), soft_wrap=True, highlight=False)


@click.command("fit")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=_FOLDER)
@_JSON
def fit_command(folders: tuple[Path, ...], as_json: bool) -> None:
    """Fit the worth of repeated data, R_D* and R_N*, to studies of three model sizes or more."""
    from trainer.study_sections import repeat_words
    from trainer.study_sizes import fit_studies

    found = fit_studies([read_study(folder) for folder in folders])
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        click.echo(repeat_words(found))


@click.command("compare")
@click.argument("a", type=_FOLDER)
@click.argument("b", type=_FOLDER)
@_JSON
def compare_command(a: Path, b: Path, as_json: bool) -> None:
    """Compare the studies in folders A and B: does what one found hold in the other?"""
    from trainer.study_compare import change_table, compare_studies

    change = compare_studies(read_study(a), read_study(b))
    if as_json:
        click.echo(msgspec.json.encode(change))
        return
    console.print(change_table(change))
    for key, (ours, theirs) in change.differing.items():
        click.echo(f"{key}: {ours!r} in A, {theirs!r} in B")
    for names, where in ((change.only_a, "A"), (change.only_b, "B")):
        if names:
            click.echo(f"only in {where}: {', '.join(names)}")
    if change.shared_seeds:
        seeds = ", ".join(map(str, change.shared_seeds))
        click.echo(f"A and B share the seeds {seeds} on one dataset: no independent evidence")
    for answer in ("confirmed", "direction only", "open", "contradicted", "same runs"):
        if names := [name for name, arm in change.arms.items() if arm.answer == answer]:
            click.echo(f"{answer}: {', '.join(names)}")


def read_study(folder: Path) -> StudyRecord:
    """Read the record of the study in `folder` or, in the folder of a chain, in `runs`.

    Raises:
        DatasetError: neither holds one.
        CorruptError: the file is not a study's record.
    """
    for path in (folder / STUDY, folder / "runs" / STUDY):
        if path.is_file():
            try:
                return read_record(path, StudyRecord)
            except CorruptError as error:
                raise CorruptError(
                    f"{error}, and run the study again with the same recipe, --data and --out: it"
                    " writes the record anew from its runs, which are kept"
                ) from None
    old = f"{BEFORE}{STUDY}"
    there = any((each / old).is_file() for each in (folder, folder / "runs"))
    why = f"; {old} is of one whose runs another study began to replace" if there else ""
    raise DatasetError(
        f"{folder}: no finished study (neither {STUDY} nor runs/{STUDY}){why}; run assay study"
        " first"
    )
