"""What stands in the folders of a chain, and whether the parts belong together."""

from dataclasses import dataclass
from pathlib import Path

from pipelines.report.study import Run, Study, read_run, read_study
from shards.errors import DatasetError
from shards.manifest import MANIFEST, Manifest, read_manifest
from tokenizer.folder import INFO, TokenizerInfo, read_info


@dataclass(frozen=True)
class Parts:
    """The records of a chain; None where a stage did not run.

    `notes` are things a reader must know before believing the numbers, such as tokens that were
    made from another dataset.
    """

    root: Path
    curated: Manifest | None
    tokenizer: TokenizerInfo | None
    tokens: Manifest | None
    study: Study | None
    run: Run | None
    notes: list[str]

    @property
    def name(self) -> str:
        """The chain's name: that of its folder."""
        return self.root.resolve().name or "chain"


def read_parts(root: Path) -> Parts:
    """Read the records of the chain in `root`.

    Raises:
        DatasetError: no such folder, or nothing of a chain in it.
        CorruptError: a record does not match its own hash or form.
    """
    if not root.is_dir():
        raise DatasetError(
            f"{root}: no such folder; give the folder of a chain (`assay run --out`)"
        )
    curated = _manifest(root / "curated", "documents")
    tokens = _manifest(root / "tokens", "tokens")
    folder = root / "tokenizer"
    tokenizer = read_info(folder) if (folder / INFO).is_file() else None
    study = read_study(root / "runs")
    run = None if study else read_run(root / "runs")
    if not any((curated, tokens, tokenizer, study, run)):
        raise DatasetError(
            f"{root}: nothing to report: no curated/{MANIFEST}, tokenizer/{INFO},"
            f" tokens/{MANIFEST} or runs/study.json in it; give the folder of a chain"
        )
    notes = mismatches(curated, tokenizer, tokens, study or run)
    return Parts(root, curated, tokenizer, tokens, study, run, notes)


def mismatches(
    curated: Manifest | None,
    tokenizer: TokenizerInfo | None,
    tokens: Manifest | None,
    training: Study | Run | None,
) -> list[str]:
    """Say which parts were made from something else than what stands beside them."""
    notes = []
    if curated and tokens and curated.dataset_id not in tokens.content.parents:
        parents = ", ".join(tokens.content.parents) or "nothing"
        notes.append(
            f"The tokens were made from {parents}, not from the curated dataset"
            f" {curated.dataset_id} beside them: run `assay tokenize` again."
        )
    used = (tokens.content.tokenizer or {}).get("sha256") if tokens else None
    if tokenizer and used and used != tokenizer.sha256:
        notes.append(
            f"The tokens were made with tokenizer {used[:12]}…, not with the one beside them"
            f" ({tokenizer.sha256[:12]}…): run `assay tokenize` again."
        )
    if tokens and training and training.dataset_id != tokens.dataset_id:
        notes.append(
            f"Training used tokens dataset {training.dataset_id}, not {tokens.dataset_id} beside"
            " it: run `assay study` again."
        )
    return notes


def _manifest(folder: Path, kind: str) -> Manifest | None:
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_manifest(folder)
    if manifest.content.kind != kind:
        raise DatasetError(f"{folder}: holds {manifest.content.kind}, expected {kind}")
    return manifest
