"""The next recipe: which mixture should be better, by how much, and how sure is that?

Candidates are averages of the arms that were tried, with random weights, so no share leaves what
was tried. Each is judged by its predicted difference plus one standard deviation, which shuns what
is only promising because little is known of it, and the suggestion is the mean of the best hundred
(as RegMix: Liu et al. 2024, §3.3). A candidate that would read a cell more than four times is left
out: up to there repeated data is worth about as much as new (Muennighoff et al. 2023, §5).

The recipe that is written states the prediction and takes fresh seeds; the study of it says whether
the prediction held.
"""

from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from shards.errors import TrainingError
from trainer.records import StudyRecord
from trainer.study_config import Mix, Prediction, StudyConfig
from trainer.study_records import WorthModel
from trainer.study_told import made_for
from trainer.study_worth import predict

Floats = npt.NDArray[np.float64]

ARM = "suggested"
CANDIDATES = 20_000
BEST = 100
MAX_EPOCHS = 4.0
FEW_ARMS = 4
"""Below so many arms besides the control intervals are mostly the prior's (docs/design/study.md,
the table of planted worlds)."""
_NORMAL = 1.959964
_SEED = 20_261_124


class Suggestion(NamedTuple):
    """A mixture by cell (shares of the tokens), what it should do, and the study that tests it.

    `delta` is suggested − control in bits per byte; `low` and `high` bound what the next study
    will measure (95 %); `expected_low`, `expected_high` the expectation itself.
    """

    weights: dict[str, float]
    delta: float
    low: float
    high: float
    expected_low: float
    expected_high: float
    study: StudyConfig


def suggest(record: StudyRecord) -> Suggestion:
    """Choose the next mixture from what a study measured.

    Raises:
        TrainingError: the study is INCONCLUSIVE, or its arms say nothing of mixtures.
    """
    worth = record.worth
    if not record.gate_passed:
        raise TrainingError(
            f"the study is INCONCLUSIVE, so its differences say nothing of worth: {record.gate}"
        )
    if worth is None:
        raise TrainingError(_why_no_worth(record))
    mean, covariance = np.array(worth.weights), np.array(worth.covariance)
    tried = _shares(record, worth)
    candidates = _candidates(tried)
    tokens = _token_shares(candidates, worth)
    allowed = (tokens * record.tokens <= MAX_EPOCHS * _tokens(worth)).all(axis=1)
    if not allowed.any():
        raise TrainingError(
            f"every mixture of the arms would read some cell more than {MAX_EPOCHS:g} times in"
            f" {record.tokens:,} tokens: lower train.tokens, or curate more data"
        )
    moves = candidates[allowed] - tried[0]
    expected, spread = predict(moves, mean, covariance, worth.misfit, 0.0, np.inf)
    best = np.argsort(expected + spread, kind="stable")[:BEST]
    chosen = candidates[allowed][best].mean(axis=0)
    move = (chosen - tried[0])[np.newaxis, :]
    seeds = len(record.study.seeds)
    delta, alone = predict(move, mean, covariance, worth.misfit, 0.0, np.inf)
    _, measured = predict(move, mean, covariance, worth.misfit, worth.noise, seeds)
    weights = _named(_token_shares(chosen[np.newaxis, :], worth)[0], worth)
    low, high = (float(delta[0] + sign * _NORMAL * measured[0]) for sign in (-1, 1))
    return Suggestion(
        weights=weights,
        delta=float(delta[0]),
        low=low,
        high=high,
        expected_low=float(delta[0] - _NORMAL * alone[0]),
        expected_high=float(delta[0] + _NORMAL * alone[0]),
        study=_next_study(record, weights, float(delta[0]), low, high),
    )


def _why_no_worth(record: StudyRecord) -> str:
    """Say why the record holds no regression of worth, and what to do."""
    if not any(arm.shares for arm in record.arms.values()):
        return (
            "the record does not say of which cells its arms are made (an older Assay wrote it);"
            " run assay study with the same recipe, --data and --out again, which writes it anew"
        )
    others = [name for name, arm in record.arms.items() if arm.delta is not None]
    return (
        f"besides the control the study has {', '.join(others) or 'no arm'}, of which"
        " fewer than two passed the gate and differ in what they hold, or all documents are in one"
        " cell: add mixtures to it, such as [study.probes] count = 8"
    )


def _shares(record: StudyRecord, worth: WorthModel) -> Floats:
    """Return float64[A, K]: of each arm's bytes, the control first."""
    return np.array(
        [
            [record.arms[arm].shares.get(cell.cell, 0.0) for cell in worth.cells]
            for arm in worth.arms
        ]
    )


def _candidates(tried: Floats) -> Floats:
    """Return the arms themselves and random averages of them, float64[n, K]."""
    rng = np.random.default_rng(_SEED)
    parts = [np.eye(len(tried))]
    for concentration in (0.1, 0.3, 1.0, 3.0):
        alpha = np.full(len(tried), concentration)
        parts.append(rng.dirichlet(alpha, CANDIDATES // 4))
    return np.concatenate(parts) @ tried


def _tokens(worth: WorthModel) -> Floats:
    return np.array([cell.tokens for cell in worth.cells], np.float64)


def _token_shares(shares: Floats, worth: WorthModel) -> Floats:
    """Turn shares of bytes, float64[n, K], into shares of tokens."""
    sizes = np.array([max(1, cell.bytes) for cell in worth.cells], np.float64)
    tokens = shares * (_tokens(worth) / sizes)
    found: Floats = tokens / tokens.sum(axis=1, keepdims=True)
    return found


def _named(weights: Floats, worth: WorthModel) -> dict[str, float]:
    """Return the weights by cell, four digits each, without those below a thousandth."""
    return {
        cell.cell: round(float(weight), 4)
        for cell, weight in zip(worth.cells, weights, strict=True)
        if weight >= 1e-3 and cell.tokens
    }


def _next_study(
    record: StudyRecord, weights: dict[str, float], delta: float, low: float, high: float
) -> StudyConfig:
    """Return the study that tests a mixture against the same control on fresh seeds."""
    study = record.study
    used = {*study.seeds, *(study.sweep.seeds if study.sweep else [])}
    used |= set(study.prediction.seeds if study.prediction else [])
    first = max(used) + 1
    read = [*study.arms.values(), *study.apart_from] if study.max_overlap < 1 else []
    smaller = _room(record, weights) < record.arms[study.control].available_tokens
    suggested = StudyConfig(
        arms={study.control: study.arms[study.control]},
        control=study.control,
        mixtures={ARM: Mix(weights=weights)},
        cells=study.cells,
        random_like=[ARM] if smaller else None,
        valid=study.valid,
        max_overlap=study.max_overlap,
        # Else documents that only the other arms hold would come back into the validation.
        apart_from=[text for text in dict.fromkeys(read) if text != study.arms[study.control]],
        seeds=list(range(first, first + len(study.seeds))),
        level=study.level,
        bootstrap_samples=study.bootstrap_samples,
        expected_seed_sd=_seed_sd(record),
        expected_document_sd=study.expected_document_sd,
    )
    told = Prediction(
        arm=ARM,
        delta=round(delta, 6),
        low=round(low, 6),
        high=round(high, 6),
        seeds=sorted(used),
        dataset_id=record.dataset_id,
        tokens=record.tokens,
        made_for=made_for(suggested, ARM, record.train, record.valid),
    )
    return msgspec.structs.replace(suggested, prediction=told)


def _room(record: StudyRecord, weights: dict[str, float]) -> float:
    """Return how many tokens a mixture of the control holds: what its scarcest cell allows."""
    tokens = {cell.cell: cell.tokens for cell in record.worth.cells} if record.worth else {}
    total = sum(weights.values())
    return min((tokens[cell] * total / weight for cell, weight in weights.items()), default=0.0)


def _seed_sd(record: StudyRecord) -> float:
    """Return the standard deviation over seeds of a difference, as this study measured it."""
    noise = record.worth.noise if record.worth else 0.0
    return float(f"{(2 * noise) ** 0.5:.2g}") or record.study.expected_seed_sd


def recipe_text(record: StudyRecord, found: Suggestion) -> str:
    """Return the next study as a TOML recipe; settings that are defaults are left out."""
    head = (
        f"# Suggested by a study of dataset {record.dataset_id}.\n"
        f"# {ARM} − {record.control} should be measured between {found.low:+.4f} and"
        f" {found.high:+.4f} bits per byte.\n"
        "# Run it on the same tokens: assay study THIS --data TOKENS --out DIR\n"
    )
    if doubt := _doubt(record):
        head += f"# {doubt}\n"
    lines = [head]
    for name, value in (("train", record.train), ("study", found.study)):
        plain, default = msgspec.to_builtins(value), msgspec.to_builtins(type(value)())
        changed = {key: item for key, item in plain.items() if item != default.get(key)}
        lines += _table(name, changed | ({"control": record.control} if name == "study" else {}))
    return "\n".join(lines) + "\n"


def _table(path: str, table: dict[str, Any]) -> list[str]:
    """Write one table and those inside it; None is left out, as in a recipe."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = [f"[{path}]"]
    lines += [f"{_key(key)} = {_value(item)}" for key, item in plain.items() if item is not None]
    lines.append("")
    for key, item in table.items():
        if isinstance(item, dict) and item:
            lines += _table(f"{path}.{_key(key)}", item)
    return lines


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _value(key)


def _value(value: Any) -> str:
    """Write a value: JSON's strings, numbers, booleans and lists are TOML's as well."""
    return msgspec.json.encode(value).decode()


def _doubt(record: StudyRecord) -> str:
    """Say that a suggestion from few arms is a guess; empty from more."""
    arms = len(record.worth.arms) - 1 if record.worth else 0
    if arms >= FEW_ARMS:
        return ""
    return (
        f"From {arms} arms besides the control: below {FEW_ARMS} the interval is mostly the"
        " prior's, so this is a guess to test, and no finding."
    )


def suggestion_words(record: StudyRecord, found: Suggestion) -> str:
    """Say what is suggested, and how far the model of worth can be trusted."""
    worth = record.worth
    tested = ""
    if worth is not None:
        rank = (
            "" if worth.left_out_rank is None else f", rank correlation {worth.left_out_rank:.2f}"
        )
        tested = (
            f" Left out one by one, {len(worth.arms) - 1} arms are predicted with an error of"
            f" {worth.left_out_error:.4f} (no difference: {worth.plain_error:.4f}{rank})."
        )
    better = found.expected_high < 0
    return (
        f"{ARM} − {record.control}: {found.delta:+.4f} bits per byte expected"
        f" ({found.expected_low:+.4f} to {found.expected_high:+.4f}); a study with"
        f" {len(found.study.seeds)} seeds should measure {found.low:+.4f} to {found.high:+.4f}."
        + ("" if better else " No mixture of what was tried is surely better than the control.")
        + (f" {doubt}" if (doubt := _doubt(record)) else "")
        + tested
    )


def suggestion_summary(record: StudyRecord, found: Suggestion) -> dict[str, Any]:
    """Return the plain data that `--json` prints."""
    return {
        "control": record.control,
        "weights": found.weights,
        "delta": found.delta,
        "low": found.low,
        "high": found.high,
        "expected_low": found.expected_low,
        "expected_high": found.expected_high,
        "seeds": found.study.seeds,
    }
