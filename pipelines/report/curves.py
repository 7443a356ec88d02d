"""Learning curves with their bands and baselines, and the intervals of differences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from pipelines.report.axes import Tick, nice_ticks, quantity, spread, tick_labels
from pipelines.report.study import ArmResult, CurvePoint, Run, Study

LABEL_GAP = 6.5
"""Least distance of two labels at the right edge, in percent of the height."""

MOST_CURVES = 6
"""Curves in one chart, each in a colour of its own: classes s0 to s5 of the style sheet. More
colours cannot be told apart, least of all by people who see fewer of them."""

NO_CURVE = -1
"""The style of an arm that is not drawn: class s-1."""

Floats = npt.NDArray[np.float64]
Band = tuple[Floats, Floats, Floats, Floats]
"""Trained tokens, mean, low and high, each float64[points]."""


@dataclass(frozen=True)
class Series:
    """A line with its band, as SVG path data in percent; `style` is its place in the palette."""

    name: str
    style: int
    line: str
    band: str
    points: str


@dataclass(frozen=True)
class Level:
    """A baseline, a horizontal line: `kind` is unigram, bigram or zstd."""

    at: float
    kind: str


@dataclass(frozen=True)
class Label:
    """A direct label at the right edge: `at` after moving apart what would overlap."""

    at: float
    text: str
    style: int


@dataclass(frozen=True)
class Curves:
    """A chart of validation bits per byte over trained tokens."""

    series: list[Series]
    levels: list[Level]
    labels: list[Label]
    x: list[Tick]
    y: list[Tick]
    band: str
    arms: int = 1
    """Of the study, drawn or not."""
    control: str = ""
    """Whose baselines these are, where there are several arms."""


@dataclass(frozen=True)
class ForestRow:
    """One arm: the mean difference, its interval, and the intervals by seeds and by documents."""

    name: str
    style: int
    at: float
    both: tuple[float, float]
    seeds: tuple[float, float] | None
    documents: tuple[float, float] | None


@dataclass(frozen=True)
class Forest:
    """Intervals of arm − control on one axis."""

    rows: list[ForestRow]
    x: list[Tick]
    zero: float
    coverage: str


def study_curves(study: Study) -> Curves | None:
    """Place the arms' curves, each the mean over seeds with a band, and the control's baselines.

    Those of the other arms lie close to these, too close to be told apart; the table has them.
    """
    arms = {name: arm for name, arm in study.arms.items() if _common(arm)}
    arms = {name: arms[name] for name in drawn(study) if name in arms}
    if not arms:
        return None
    bands = {name: band_of(arm, study.level) for name, arm in arms.items()}
    own = study.arms[study.control].baselines
    levels = [("unigram", own.unigram), ("bigram", own.bigram)]
    if study.valid.zstd_bpb is not None:
        levels.append(("zstd", study.valid.zstd_bpb))
    seeds = min(len(arm.seeds) for arm in arms.values())
    band = (
        f"band: {100 * (1 - study.level):g}\u202f% t interval of the mean over {seeds} seeds"
        if seeds > 2
        else f"band: range over {seeds} seeds"
    )
    curves = _curves(bands, levels, band, styles(study, list(arms)))
    several = len(study.arms) > 1
    return replace(curves, arms=len(study.arms), control=study.control if several else "")


def drawn(study: Study) -> list[str]:
    """Return the arms whose curves are shown: all, or the control and those that differ most."""
    if len(study.arms) <= MOST_CURVES:
        return list(study.arms)
    others = [name for name in study.arms if name != study.control]
    ordered = sorted(others, key=lambda name: -abs(study.arms[name].delta or 0.0))
    chosen = {study.control, *ordered[: MOST_CURVES - 1]}
    return [name for name in study.arms if name in chosen]


def styles(study: Study, names: list[str]) -> list[int]:
    """Return each arm's colour, a number below `MOST_CURVES` that no other arm has, or NO_CURVE."""
    places = {name: place for place, name in enumerate(drawn(study))}
    return [places.get(name, NO_CURVE) for name in names]


def run_curves(run: Run) -> Curves | None:
    """Place the curve of a single run and its baselines."""
    if not run.curve:
        return None
    tokens = np.array([point.tokens for point in run.curve], np.float64)
    bpb = np.array([point.valid_bpb for point in run.curve])
    bpb += run.bpb - bpb[-1]
    levels = [(kind, getattr(run.baselines, kind)) for kind in ("unigram", "bigram")]
    return _curves({"model": (tokens, bpb, bpb, bpb)}, levels, "one run: no band", [0])


def band_of(arm: ArmResult, level: float) -> Band:
    """Return tokens, mean bpb, low and high over seeds, each float64[points].

    Points are measured on few validation documents. So each seed's curve is moved to end at its
    score on all of them, as where the study reads curves (`trainer.study_gate.anchored_curve`):
    else the chart could put the arms in another order than the table under it.
    With three seeds or more, low and high bound the t interval of the mean (coverage 1 − level);
    with two, whose t interval is as wide as a chart, they are the two seeds' own values.
    """
    tokens = _common(arm)
    values = np.array(
        [
            [_at(seed.curve, place) + (seed.bpb - seed.curve[-1].valid_bpb) for place in tokens]
            for seed in arm.seeds
        ]
    )
    mean = values.mean(axis=0)
    count = len(values)
    if count > 2:
        scale = float(stats.t.ppf(1 - level / 2, count - 1)) / np.sqrt(count)
        half = scale * values.std(axis=0, ddof=1)
        low, high = mean - half, mean + half
    else:
        low, high = values.min(axis=0), values.max(axis=0)
    return np.array(tokens, np.float64), mean, low, high


def _common(arm: ArmResult) -> list[int]:
    """Return the places (trained tokens) at which all seeds of an arm were validated."""
    places = [{point.tokens for point in seed.curve} for seed in arm.seeds]
    return sorted(set.intersection(*places)) if places else []


def _at(curve: list[CurvePoint], tokens: int) -> float:
    return next(point.valid_bpb for point in curve if point.tokens == tokens)


def _curves(
    bands: dict[str, Band],
    levels: list[tuple[str, float]],
    band_text: str,
    places: list[int],
) -> Curves:
    """Place bands and levels on common axes; x begins at 0 tokens."""
    right = max(float(tokens[-1]) for tokens, *_ in bands.values())
    values = np.concatenate([np.r_[mean, low, high] for _, mean, low, high in bands.values()])
    values = np.r_[values, [value for _, value in levels]]
    margin = 0.04 * float(np.ptp(values)) or 0.1
    bottom, top = float(values.min()) - margin, float(values.max()) + margin

    def y(value: float) -> float:
        return 100 * (top - value) / (top - bottom)

    series: list[Series] = []
    labels: list[tuple[float, str, int]] = []
    for style, (name, (tokens, mean, low, high)) in zip(places, bands.items(), strict=True):
        x = 100 * tokens / right
        line = list(zip(x, map(y, mean), strict=True))
        outline = [
            *zip(x, map(y, high), strict=True),
            *reversed([*zip(x, map(y, low), strict=True)]),
        ]
        dots = "".join(f"M{px:.2f} {py:.2f}h0" for px, py in line)
        series.append(Series(name, style, _path(line), f"{_path(outline)}Z", dots))
        labels.append((y(float(mean[-1])), f"{mean[-1]:.3f} {name}", style))
    labels += [(y(value), f"{value:.3f} {kind}", NO_CURVE) for kind, value in levels]
    moved = spread([at for at, _, _ in labels], LABEL_GAP)
    x_ticks, y_ticks = nice_ticks(0, right, 4), nice_ticks(bottom, top, 5)
    return Curves(
        series=series,
        levels=[Level(y(value), kind) for kind, value in levels],
        labels=[Label(at, text, style) for at, (_, text, style) in zip(moved, labels, strict=True)],
        x=[Tick(100 * value / right, quantity(value)) for value in x_ticks],
        y=[Tick(y(v), text) for v, text in zip(y_ticks, tick_labels(y_ticks), strict=True)],
        band=band_text,
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points)


def forest(study: Study) -> Forest | None:
    """Place every arm's difference from the control; None without any."""
    compared = {
        name: arm
        for name, arm in study.arms.items()
        if arm.delta is not None and arm.ci_low is not None and arm.ci_high is not None
    }
    if not compared:
        return None
    ends = [0.0]
    for arm in compared.values():
        ends += [arm.ci_low or 0.0, arm.ci_high or 0.0]
    margin = 0.12 * (max(ends) - min(ends)) or 0.01
    low, high = min(ends) - margin, max(ends) + margin

    def x(value: float) -> float:
        return 100 * (value - low) / (high - low)

    def span(ends: tuple[float, float] | None) -> tuple[float, float] | None:
        return (x(ends[0]), x(ends[1])) if ends else None

    rows = [
        ForestRow(
            name=name,
            style=style,
            at=x(arm.delta or 0.0),
            both=(x(arm.ci_low or 0.0), x(arm.ci_high or 0.0)),
            seeds=span(arm.seed_ci),
            documents=span(arm.document_ci),
        )
        for style, (name, arm) in zip(styles(study, list(compared)), compared.items(), strict=True)
    ]
    values = nice_ticks(low, high, 5)
    ticks = [Tick(x(v), t) for v, t in zip(values, tick_labels(values), strict=True)]
    return Forest(rows, ticks, x(0.0), _coverage(study, compared))


def _coverage(study: Study, arms: dict[str, ArmResult]) -> str:
    """Say at which coverage intervals are drawn: of each arm, or once where all have the same."""
    texts = {
        name: f"{100 * (1 - (study.level if arm.level is None else arm.level)):.4g}\u202f%"
        for name, arm in arms.items()
    }
    if len(texts) > 1 and len(set(texts.values())) == 1:
        return f"all {next(iter(texts.values()))}"
    return ", ".join(f"{name}: {text}" for name, text in texts.items())
