"""Sections of a study's page beyond its answer, from the record alone (light: imports no torch)."""

from collections.abc import Iterable

from trainer.records import StudyRecord
from trainer.show import quantity, signed
from trainer.study_controls import random_words
from trainer.study_records import PredictionResult, Prequential, RepeatFit

MOST = 12
"""Rows of the tables of signals and cells."""

NO_EVIDENCE = "The gate failed: what follows describes these runs, and is no evidence about data."

PER_SHARE = 0.1
"""Worth is written for a tenth of an arm's bytes."""


def markdown_table(heads: list[str], rows: Iterable[list[str]]) -> str:
    """Write a Markdown table; a `|` inside a cell is escaped."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)


def bounds(interval: tuple[float, float] | None, decimals: int = 4) -> str:
    """Write an interval, empty where there is none."""
    if interval is None:
        return ""
    return f"{signed(interval[0], decimals)} to {signed(interval[1], decimals)}"


def extra_sections(record: StudyRecord) -> list[str]:
    """Return the sections for which the study has something to say."""
    parts = [_ladder(record), _prequential(record), _repeats(record.repeats), _worth(record),
             _signals(record), _sweep(record)]  # fmt: skip
    said = [part for part in parts if part]
    return said if record.gate_passed or not said else [NO_EVIDENCE, *said]


def source_rows(record: StudyRecord) -> str:
    """Write bits per byte and differences by source."""
    sources = list(record.arms[record.control].by_source)
    rows = []
    for name, arm in record.arms.items():
        cells = []
        for source in sources:
            text = f"{arm.by_source[source]:.4f}" if source in arm.by_source else ""
            found = arm.sources.get(source)
            if found is not None:
                interval = f" ({bounds(found.interval)})" if found.interval else ""
                text += f", {signed(found.delta)}{interval}"
            cells.append(text)
        rows.append([name, *cells])
    return markdown_table(["arm", *sources], rows)


def _ladder(record: StudyRecord) -> str:
    keys = list(dict.fromkeys(key for arm in record.arms.values() for key in arm.ladder))
    if not keys:
        return ""
    heads = {"zstd": "zstd, each document", "fixed": "tokens × log2 V",
             "unigram": "unigram entropy", "prequential": "model, while it learns"}  # fmt: skip
    rows = [
        [name, "8", *(f"{arm.ladder[key]:.4f}" if key in arm.ladder else "" for key in keys)]
        for name, arm in record.arms.items()
    ]
    table = markdown_table(["arm", "raw", *(heads.get(key, key) for key in keys)], rows)
    return (
        f"## Compression ladder of the arms' own text\n\n{table}\n\nBits per byte of what each arm"
        " holds, not of the validation. A lower number is more redundant text, not a better arm."
    )


def _prequential(record: StudyRecord) -> str:
    pairs = [
        (name, arm.prequential)
        for name, arm in record.arms.items()
        if arm.prequential and arm.prequential.against
    ]
    if not pairs:
        return ""
    lines = [f"- {prequential_words(name, code)}" for name, code in pairs]
    return "## Code length of identical bytes\n\n" + "\n".join(lines)


def prequential_words(name: str, code: Prequential) -> str:
    """Say how two arms that read the same bytes compare as codes of them."""
    delta = "" if code.delta is None else signed(code.delta)
    return (
        f"{name} codes the documents that {code.against} reads as well in {code.bpb:.4f} bits per"
        f" byte, {delta} ({bounds(code.interval)} over seeds) from it"
    )


def _repeats(fit: RepeatFit | None) -> str:
    return "" if fit is None else f"## Repeated data\n\n{repeat_words(fit)}"


def repeat_words(fit: RepeatFit) -> str:
    """Say what the fit of the data-constrained law found, and of which arms it says nothing."""
    arms, left = ", ".join(fit.arms), ""
    if fit.left_out:
        left = f" Left out, since they did not pass the gate: {', '.join(fit.left_out)}."
    if fit.r_d_star is None or fit.r_d_interval is None:
        return f"R_D* of {arms}: not determined: {fit.reason}.{left}"
    low, high = fit.r_d_interval
    size = ""
    if fit.r_n_star is not None and fit.r_n_interval is not None:
        size = (
            f" R_N* = {fit.r_n_star:.2f} ({fit.r_n_interval[0]:.2f} to {fit.r_n_interval[1]:.2f}),"
            " the same for parameters beyond what unique tokens can use (eq. 6; their C4: 5.3)."
        )
    return (
        f"R_D* = {fit.r_d_star:.2f} ({low:.2f} to {high:.2f} over seeds), fitted to {arms} with a"
        f" residual of {fit.error or 0.0:.4f}: after R* repetitions a token that is read again is"
        f" worth 1/e of a new one (Muennighoff et al. 2023, eq. 5; their C4: 15.4).{size}"
        + (f" {fit.reason}." if fit.reason else "")
        + left
    )


def _worth(record: StudyRecord) -> str:
    worth = record.worth
    if worth is None:
        return ""
    total = sum(cell.bytes for cell in worth.cells) or 1
    ordered = sorted(worth.cells, key=lambda cell: cell.effect)
    shown = ordered if len(ordered) <= 2 * MOST else [*ordered[:MOST], *ordered[-MOST:]]
    rows = [
        [
            cell.cell,
            f"{100 * cell.bytes / total:.1f} %",
            signed(PER_SHARE * cell.effect),
            bounds((PER_SHARE * cell.interval[0], PER_SHARE * cell.interval[1])),
        ]
        for cell in shown
    ]
    signal = record.study.cells.signal
    what = "source" if signal is None else f"source, and bin of {signal}"
    rank = "" if worth.left_out_rank is None else f", rank correlation {worth.left_out_rank:.2f}"
    return (
        f"## Worth per byte by {what}\n\n"
        + markdown_table(["cell", "of the control", "10 % more of it", "95 % interval"], rows)
        + f"\n\nBits per byte by which the validation changes where a tenth of an arm's bytes moves"
        f" into the cell, by regression over {len(worth.arms)} arms. Each arm predicted from the"
        f" others: error {worth.left_out_error:.4f}, against {worth.plain_error:.4f} for predicting"
        f" no difference{rank}."
    )


def _signals(record: StudyRecord) -> str:
    if not record.signals:
        return ""
    rows = [
        [rank.signal, f"{rank.rho:+.2f}", f"{rank.p_value:.3f}"] for rank in record.signals[:MOST]
    ]
    more = len(record.signals) - len(rows)
    return (
        "## Do quality measures tell worth?\n\n"
        + markdown_table(["signal", "ρ", "p"], rows)
        + "\n\nSpearman's ρ over arms, between the mean of a signal and the arm's worth; p by"
        f" permuting arms, corrected for {len(record.signals)} signals."
        + (f" {more} weaker ones are in the record." if more else "")
    )


def _sweep(record: StudyRecord) -> str:
    if record.sweep is None:
        return ""
    rows = [
        [f"{point.learning_rate:g}", f"{point.weight_decay:g}", f"{point.bpb:.4f}",
         "chosen" if number == record.sweep.chosen else ""]
        for number, point in enumerate(record.sweep.points)
    ]  # fmt: skip
    table = markdown_table(["learning rate", "weight decay", "bpb of the control", ""], rows)
    edge = ", ".join(record.sweep.at_edge)
    note = f"\n\nThe best {edge} lies at an end of what was tried: try further." if edge else ""
    return f"## Sweep on the control arm\n\n{table}{note}"


def control_rows(record: StudyRecord) -> list[list[str]]:
    """Return what was held equal or checked, row by row."""
    study, valid = record.study, record.valid
    budget = "equal FLOPs and equal unique tokens" if study.budget == "unique" else "equal FLOPs"
    seen, train = record.detectable_difference, record.train
    tuned = (
        "as the recipe says"
        if record.sweep is None
        else f"best of {len(record.sweep.points)} on {record.control} alone, seeds"
        f" {', '.join(map(str, study.sweep.seeds)) if study.sweep else ''}"
    )
    rows = [
        ["dataset", f"`{record.dataset_id}`, one tokenizer for all arms"],
        ["budget", f"{budget}: {record.tokens:,} tokens, {quantity(record.flops)}FLOP a run"],
        ["model", f"{quantity(record.parameters)} parameters"],
        ["learning rate, weight decay",
         f"{train.learning_rate:g}, {train.weight_decay:g}: {tuned}"],
        ["seeds", f"{', '.join(map(str, study.seeds))}; same first weights and order law for all,"
         " draws of its own for each"],
        ["validation", f"{valid.documents:,} documents, {valid.bytes:,} bytes: `{valid.select}`;"
         " no arm shares a document with it"],
        ["random subset of equal size", random_words(record.arms, study)],
        ["seen with a chance of 80 %",
         "unknown" if seen is None else f"a difference of {seen:.4f} bits per byte"],
    ]  # fmt: skip
    spent = [seed.cpu_seconds for arm in record.arms.values() for seed in arm.seeds]
    known = [seconds for seconds in spent if seconds is not None]
    if len(known) == len(spent):  # records of older runs have none
        rows.append(["cost", f"{sum(known):,.0f} CPU seconds in {len(known)} runs"])
    if valid.overlap is not None:
        found = valid.overlap
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in found.arms.items())
        rows.insert(6, [
            "decontamination",
            f"{found.removed} of {found.documents} documents with more than"
            f" {100 * found.limit:g} % of their {found.ngram}-grams of tokens in training data"
            f" taken out; highest left {100 * found.highest:.0f} %; of all {found.ngram}-grams in"
            f" {shares}",
        ])  # fmt: skip
    if record.prediction is not None:
        rows.append(["prediction", prediction_words(record.prediction)])
    return rows


def prediction_words(found: PredictionResult) -> str:
    """Say whether what an earlier study foretold was measured."""
    changed = [
        what
        for what, same in (("dataset", found.same_dataset), ("budget", found.same_tokens))
        if not same
    ] + found.other
    other = f" (made for another {', '.join(changed)}: no test of it)" if changed else ""
    held = {True: "held", False: "did NOT hold", None: "was not tested: the arm is INCONCLUSIVE"}
    return (
        f"{found.arm}: {signed(found.predicted)} ({signed(found.low)} to {signed(found.high)})"
        f" foretold by an earlier study{other}, {signed(found.measured)}"
        f" ({bounds(found.interval)}) measured on fresh seeds: the prediction"
        f" {held[found.held]}{_held_how(found)}"
    )


def _held_how(found: PredictionResult) -> str:
    """Say what weakens a prediction that held: it forbade little, or its middle was not met."""
    low, high = found.interval
    weak = [
        words
        for words, is_so in (
            ("its interval includes no difference", found.low <= 0 <= found.high),
            (
                "the foretold value lies outside of the measured interval",
                not low <= found.predicted <= high,
            ),
        )
        if found.held and is_so
    ]
    return f", but {' and '.join(weak)}" if weak else ""
