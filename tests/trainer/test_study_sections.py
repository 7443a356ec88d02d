import msgspec
import pytest

from tests.trainer.records import study_record
from trainer.study_records import (
    CellWorth,
    OverlapResult,
    PredictionResult,
    Prequential,
    RepeatFit,
    SignalRank,
    SourceResult,
    SweepPoint,
    SweepResult,
    WorthModel,
)
from trainer.study_sections import (
    NO_EVIDENCE,
    control_rows,
    extra_sections,
    prediction_words,
    repeat_words,
    source_rows,
)

ARMS = {"curated": (-0.05, -0.08, -0.02, "arm better")}
FIT = RepeatFit(
    r_d_star=5.5, r_d_interval=(3.0, 10.0), r_n_star=None, r_n_interval=None,
    arms=["raw", "repeat-2"], error=0.002, reason="R_N* needs more",
)  # fmt: skip


def test_a_study_of_plain_arms_has_no_more_to_say():
    assert extra_sections(study_record(ARMS)) == []


def test_every_section_says_its_numbers():
    record = study_record(
        ARMS,
        repeats=FIT,
        signals=[SignalRank(signal="zstd_bpb", rho=-0.5, p_value=0.25)],
        worth=WorthModel(
            arms=["raw", "a", "b"],
            cells=[CellWorth(cell="x", tokens=5, bytes=10, effect=-0.2, interval=(-0.4, 0.0))],
            weights=[0.0], covariance=[[1.0]], noise=0.0, misfit=0.0, left_out_rank=0.5,
            left_out_error=0.01, plain_error=0.02,
        ),
        sweep=SweepResult(
            points=[
                SweepPoint(learning_rate=rate, embedding_learning_rate=rate, weight_decay=0.1,
                           bpb=2.0 + rate, runs=["sweep01-9"])
                for rate in (0.01, 0.02)
            ],
            chosen=0,
            at_edge=["learning_rate"],
        ),
    )  # fmt: skip
    code = Prequential(bpb=2.5, read=1.0, against="raw", delta=-0.1, interval=(-0.2, 0.0))
    arm = msgspec.structs.replace(
        record.arms["curated"], prequential=code, ladder={"zstd": 3.1, "prequential": 2.5}
    )
    record = msgspec.structs.replace(record, arms=record.arms | {"curated": arm})
    text = "\n".join(extra_sections(record))
    for words in (
        "| curated | 8 | 3.1000 | 2.5000 |",
        "curated codes the documents that raw reads as well in 2.5000 bits per byte, −0.1000",
        "R_D* = 5.50 (3.00 to 10.00 over seeds)",
        "| x | 100.0 % | −0.0200 | −0.0400 to +0.0000 |",
        "error 0.0100, against 0.0200 for predicting no difference, rank correlation 0.50",
        "| zstd_bpb | -0.50 | 0.250 |",
        "| 0.01 | 0.1 | 2.0100 | chosen |",
        "The best learning_rate lies at an end of what was tried",
    ):
        assert words in text
    assert NO_EVIDENCE not in text
    assert extra_sections(msgspec.structs.replace(record, gate_passed=False))[0] == NO_EVIDENCE


def test_what_was_checked_stands_in_the_controls():
    record = study_record(ARMS)
    overlap = OverlapResult(
        ngram=13, limit=0.7, documents=9, removed=2, short=0, highest=0.41, arms={"raw": 0.103}
    )
    valid = msgspec.structs.replace(record.valid, overlap=overlap)
    told = PredictionResult(
        arm="curated", predicted=-0.1, low=-0.2, high=-0.06, measured=-0.05,
        interval=(-0.08, -0.02), same_dataset=True, held=False,
    )  # fmt: skip
    rows = dict(control_rows(msgspec.structs.replace(record, valid=valid, prediction=told)))
    assert "2 of 9 documents" in rows["decontamination"]
    assert "highest left 41 %; of all 13-grams in raw 10.3 %" in rows["decontamination"]
    assert rows["prediction"].endswith("the prediction did NOT hold")
    other = msgspec.structs.replace(told, same_dataset=False, held=True)
    assert "(made for another dataset: no test of it)" in prediction_words(other)
    both = msgspec.structs.replace(other, same_tokens=False)
    both = msgspec.structs.replace(both, other=["validation"])
    assert "(made for another dataset, budget, validation: no test of it)" in prediction_words(both)
    untested = msgspec.structs.replace(told, held=None)
    assert prediction_words(untested).endswith("was not tested: the arm is INCONCLUSIVE")


@pytest.mark.parametrize(
    ("low", "high", "predicted", "end"),
    [
        (-0.2, -0.01, -0.05, "held"),
        (-0.2, 0.0, -0.05, "held, but its interval includes no difference"),
        (-0.2, -0.01, -0.1, "held, but the foretold value lies outside of the measured interval"),
        (-0.2, 0.1, -0.1, "held, but its interval includes no difference and the foretold value"
         " lies outside of the measured interval"),
    ],
)  # fmt: skip
def test_a_prediction_that_held_says_how_little_it_forbade(low, high, predicted, end):
    told = PredictionResult(
        arm="curated", predicted=predicted, low=low, high=high, measured=-0.05,
        interval=(-0.08, -0.02), same_dataset=True, held=True,
    )  # fmt: skip
    assert prediction_words(told).endswith(f"the prediction {end}")
    failed = msgspec.structs.replace(told, held=False)
    assert prediction_words(failed).endswith("the prediction did NOT hold")


def test_the_cost_is_said_where_every_run_knows_its_own():
    record = study_record(ARMS)
    assert "cost" not in dict(control_rows(record))
    arms = {
        name: msgspec.structs.replace(
            arm, seeds=[msgspec.structs.replace(seed, cpu_seconds=500.25) for seed in arm.seeds]
        )
        for name, arm in record.arms.items()
    }
    runs = 2 * len(arms)
    rows = dict(control_rows(msgspec.structs.replace(record, arms=arms)))
    assert rows["cost"] == f"{500.25 * runs:,.0f} CPU seconds in {runs} runs"


def test_differences_by_source_have_their_intervals_where_there_are_any():
    record = study_record(ARMS)
    found = SourceResult(documents=3, delta=-0.1, interval=(-0.2, 0.0))
    arm = msgspec.structs.replace(record.arms["curated"], sources={"one": found})
    page = source_rows(msgspec.structs.replace(record, arms=record.arms | {"curated": arm}))
    assert "| curated | 2.2000, −0.1000 (−0.2000 to +0.0000) |" in page
    assert "| raw | 2.2000 |" in page


def test_an_undetermined_fit_says_why():
    unknown = msgspec.structs.replace(FIT, r_d_star=None, r_d_interval=None, reason="too few")
    assert repeat_words(unknown) == "R_D* of raw, repeat-2: not determined: too few."
