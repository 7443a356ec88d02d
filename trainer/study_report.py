"""A study in words and as Markdown, from its record alone (light: imports no torch)."""

from collections.abc import Sequence

from trainer.records import ArmResult, StudyRecord
from trainer.show import coverage, multiplier_of, quantity, signed
from trainer.study_config import StudyConfig
from trainer.study_contrasts import CONTRAST_HEADS, contrast_cells, contrast_words
from trainer.study_controls import caution
from trainer.study_curves import multiplier_words, value_words
from trainer.study_records import ContrastResult
from trainer.study_sections import (
    control_rows,
    extra_sections,
    markdown_table,
    prediction_words,
    source_rows,
)

_WIDTH = 41
"""Characters of the plot of intervals."""


def answer_sentence(
    arms: dict[str, ArmResult], study: StudyConfig, contrasts: Sequence[ContrastResult] = ()
) -> str:
    """Say in plain words what the intervals show."""
    parts, failed = [], []
    for name, arm in arms.items():
        if arm.delta is None or arm.ci_low is None or arm.ci_high is None:
            continue
        if arm.verdict == "INCONCLUSIVE":
            failed.append(name)
            continue
        numbers = (
            f"{signed(arm.delta)} bits per byte"
            f" ({coverage(arm)} interval {signed(arm.ci_low)} to {signed(arm.ci_high)})"
        )
        if arm.random_delta is not None and arm.random_ci is not None:
            low, high = map(signed, arm.random_ci)
            numbers += f" and {signed(arm.random_delta)} ({low} to {high}) from its random subset"
            if not arms[f"random-{name}"].beats_baselines:
                numbers += " (INCONCLUSIVE: that does not beat its baselines)"
        if arm.verdict == "no difference seen":
            parts.append(f"no difference seen between {name} and {study.control}: {numbers}")
        else:
            better = "better" if arm.verdict == "arm better" else "worse"
            share = f"{100 * abs(arm.delta) / arms[study.control].bpb:.1f} %"
            fewer = "fewer" if arm.delta < 0 else "more"
            parts.append(
                f"{name} is {better} than {study.control}: {numbers}, {share} {fewer} bits"
            )
    if failed:
        parts.append(
            f"INCONCLUSIVE: {', '.join(failed)} ({'does' if len(failed) == 1 else 'do'} not beat"
            " the unigram and bigram models of the same samples in every run)"
        )
    parts += [contrast_words(found) for found in contrasts]
    answer = f"With {len(study.seeds)} seeds, {'; '.join(parts)}."
    return " ".join([answer, caution(arms, study)]).rstrip()


def study_markdown(record: StudyRecord) -> str:
    """Return the whole study as one Markdown page."""
    parts = [
        "# Study",
        record.sentence,
        *([f"Prediction: {prediction_words(record.prediction)}."] if record.prediction else []),
        f"## Arms\n\n{_answers(record)}",
        "Bits per byte of the validation documents, mean over seeds; lower is better. Intervals"
        " hold for other seeds and other documents; their coverage is that at which Holm's"
        " procedure tests the arm, so that the chance of calling any difference where there is none"
        f" is at most {100 * record.study.level:g} % over all arms. p is corrected alike."
        " *− random*: the difference from a random subset of equal size."
        " *Data worth*: how many tokens of the control one token of the arm is worth.",
        f"```text\n{forest(record)}\n```",
        *_contrasts(record),
        "## By source\n\nBits per byte, and the difference from the control with its interval"
        f" (level shared by arms and sources).\n\n{source_rows(record)}",
        f"## Baselines\n\n{_baselines(record)}",
        f"Gate: {record.gate}.",
        f"## Data of the arms\n\n{_data(record)}",
        *extra_sections(record),
        f"## Controls\n\n{markdown_table(['control', 'value'], control_rows(record))}",
    ]
    return "\n\n".join(parts) + "\n"


def forest(record: StudyRecord) -> str:
    """Draw the intervals of all arms below each other, with a line at no difference."""
    rows = [
        (name, arm.ci_low, arm.delta, arm.ci_high)
        for name, arm in record.arms.items()
        if arm.delta is not None and arm.ci_low is not None and arm.ci_high is not None
    ]
    low = min(0.0, *(row[1] for row in rows))
    high = max(0.0, *(row[3] for row in rows))
    scale = (_WIDTH - 1) / ((high - low) or 1.0)
    pad = max(len(row[0]) for row in rows)
    lines = []
    for name, first, middle, last in rows:
        cells = [" "] * _WIDTH
        cells[round(-low * scale)] = "│"
        start, end = round((first - low) * scale), round((last - low) * scale)
        cells[start : end + 1] = "─" * (end + 1 - start)
        cells[start], cells[end] = "├", "┤"
        cells[round((middle - low) * scale)] = "●"
        lines.append(f"{name:<{pad}}  {''.join(cells)}  {signed(middle)}")
    axis = f"{signed(low, 3)} better".ljust(_WIDTH - 12) + f"worse {signed(high, 3)}".rjust(12)
    return "\n".join([*lines, f"{'':<{pad}}  {axis}"])


def _answers(record: StudyRecord) -> str:
    heads = ["arm", "bpb", "− control", "interval", "coverage", "p", "verdict", "− random",
             "data worth", "tokens to the control's end", "area"]  # fmt: skip
    rows = []
    for name, arm in record.arms.items():
        interval = ""
        if arm.ci_low is not None and arm.ci_high is not None:
            interval = f"{signed(arm.ci_low)} to {signed(arm.ci_high)}"
        rows.append(
            [
                name,
                f"{arm.bpb:.4f}",
                "" if arm.delta is None else signed(arm.delta),
                interval,
                coverage(arm) if interval else "",
                "" if arm.p_value is None else f"{arm.p_value:.4f}",
                arm.verdict,
                _random_words(arm, record.arms.get(f"random-{name}")),
                worth_words(arm),
                "not reached" if arm.tokens_to_target is None else quantity(arm.tokens_to_target),
                "" if arm.area is None else f"{arm.area:.4f}",
            ]
        )
    return markdown_table(heads, rows)


def _contrasts(record: StudyRecord) -> list[str]:
    if not record.contrasts:
        return []
    table = markdown_table(CONTRAST_HEADS, map(contrast_cells, record.contrasts))
    return [
        f"## Planned contrasts\n\n{table}\n\nArms compared with each other, seeds and documents"
        f" paired. The chance of calling any of these {len(record.contrasts)} where there is no"
        f" difference is at most {100 * record.study.level:g} %, apart from that of the arms."
    ]


def _random_words(arm: ArmResult, random: ArmResult | None) -> str:
    if arm.random_delta is None or arm.random_ci is None:
        return ""
    low, high = map(signed, arm.random_ci)
    sure = arm.beats_baselines and (random is None or random.beats_baselines)
    return f"{signed(arm.random_delta)} ({low} to {high})" + ("" if sure else ", INCONCLUSIVE")


def worth_words(arm: ArmResult) -> str:
    """Write the effective-data multiplier with its interval, as far as they are known."""
    found = multiplier_of(arm)
    is_plain = arm.multiplier_ci is None or arm.verdict == "control"
    return value_words(found) if is_plain else multiplier_words(found)


def _baselines(record: StudyRecord) -> str:
    rows = [
        [
            name,
            *(f"{value:.4f}" for value in (
                arm.bpb, arm.baselines.unigram, arm.baselines.bigram, arm.baselines_all.unigram,
                arm.baselines_all.bigram,
            )),
        ]
        for name, arm in record.arms.items()
    ]  # fmt: skip
    heads = ["arm", "model", "unigram", "bigram", "unigram of all", "bigram of all"]
    zstd = record.valid.zstd_bpb
    end = "" if zstd is None else f"\n\nzstd, each document on its own: {zstd:.4f}."
    return markdown_table(heads, rows) + end


def _data(record: StudyRecord) -> str:
    rows = [
        [
            name,
            f"{arm.documents:,}",
            f"{arm.available_tokens:,}",
            f"{arm.unique_tokens:,}",
            f"{arm.epochs:.2f}",
            f"`{arm.select}`",
            arm.draw,
        ]
        for name, arm in record.arms.items()
    ]
    heads = ["arm", "documents", "tokens", "unique tokens read", "epochs", "selection", "of which"]
    return markdown_table(heads, rows)
