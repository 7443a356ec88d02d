"""A `Report` → one HTML file: jinja2 with autoescape, styles inlined, no scripts."""

from importlib import resources
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup

from pipelines.curate.stats import HISTOGRAMS
from pipelines.quality import SIGNALS, SignalsConfig, known_signals
from pipelines.report.axes import MINUS, quantity
from pipelines.report.curves import forest, run_curves, study_curves, styles
from pipelines.report.data import Report
from pipelines.report.diff import side_by_side
from pipelines.report.histograms import histogram
from pipelines.report.ledger import DUPLICATES
from pipelines.report.parts import Parts
from pipelines.report.worth import worth_grid
from shards.errors import AssayError
from shards.inspect import human_bytes
from shards.manifest import Content

EXCERPT = 300
"""Characters of a dropped document that are shown."""

_INVISIBLE = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {
    0x7F: "\u2421",
    **dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd"),
}
"""Control characters become pictures; the ones that reverse the order of text a question mark."""


def render(report: Report) -> str:
    """Return the report as HTML that needs nothing but itself."""
    files = resources.files(__package__)
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: f"{value:,}",
        "size": human_bytes,
        "percent": percent,
        "visible": visible,
        "excerpt": excerpt,
        "measure": measure,
        "signed": lambda value: f"{value:+.4f}".replace("-", MINUS),
        "quantity": quantity,
        "seconds": seconds,
        "plain": plain,
        "when": lambda value: value.replace("T", " ").replace("Z", " UTC"),
    }
    template = environment.from_string(files.joinpath("template.html").read_text("utf-8"))
    style = Markup(files.joinpath("style.css").read_text("utf-8"))
    return template.render(style=style, **_context(report))


def _context(report: Report) -> dict[str, Any]:
    parts, documents = report.parts, report.documents
    content = parts.curated.content if parts.curated else None
    histograms = content.stats.get("histograms", {}) if content else {}
    study, run = parts.study, parts.run
    placed = [histogram(name, histograms[name]) for name in HISTOGRAMS if name in histograms]
    return {
        "report": report,
        "parts": parts,
        "documents": documents,
        "content": content,
        "duplicates": sum(content.total.drops.get(name, 0) for name in DUPLICATES)
        if content
        else 0,
        "timings": timings(parts),
        "histograms": [item for item in placed if item],
        "pairs": [
            (pair, side_by_side(visible(pair.kept["text"]), visible(pair.dropped["text"])))
            for pair in (documents.pairs if documents else [])
        ],
        "meaning": {name: text for name, (_, text) in _signals(content).items()},
        "study": study,
        "run": run,
        "arms": dict(zip(study.arms, styles(study, list(study.arms)), strict=True))
        if study
        else {},
        "curves": study_curves(study) if study else run_curves(run) if run else None,
        "forest": forest(study) if study else None,
        "worth": worth_grid(study) if study else None,
        "manifests": [
            (name, manifest)
            for name, manifest in (("curated", parts.curated), ("tokens", parts.tokens))
            if manifest
        ],
    }


def timings(parts: Parts) -> list[tuple[str, float]]:
    """Return (stage, seconds) as the stages recorded them."""
    found = [
        (stage, float(manifest.run["seconds"]))
        for stage, manifest in (("curate", parts.curated), ("tokenize", parts.tokens))
        if manifest and "seconds" in manifest.run
    ]
    training = parts.study.seconds if parts.study else 0.0
    if parts.run:
        training = float(parts.run.facts.get("seconds", 0.0))
    return [*found, ("training", training)] if training else found


def percent(part: float, whole: float) -> str:
    """Write a share: `12.3 %`, or a dash where there is no whole."""
    return f"{100 * part / whole:.1f}\u202f%" if whole else "\u2013"


def visible(text: str) -> str:
    """Replace control characters, so that no text can hide or reorder what stands beside it."""
    return text.translate(_INVISIBLE)


def excerpt(text: str) -> str:
    """Return the first `EXCERPT` characters, and how many were left out."""
    if len(text) <= EXCERPT:
        return visible(text)
    return f"{visible(text[:EXCERPT])}\u2026 [{len(text) - EXCERPT:,} more characters]"


def measure(value: float) -> str:
    """Write a measured value or threshold: integers with commas, others with four digits."""
    return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"


def seconds(value: float) -> str:
    """Write a duration: `7.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def plain(value: Any) -> str:
    """Write plain data as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=2).decode()


def _signals(content: Content | None) -> dict[str, Any]:
    """Return the signals of a dataset; a plug-in that is not installed here adds no meaning."""
    try:
        config = msgspec.convert(content.recipe["signals"] if content else {}, SignalsConfig)
        return known_signals(config)
    except (AssayError, msgspec.ValidationError):
        return SIGNALS
