import io

import pytest
from rich.console import Console

from tests.trainer.records import study_record
from trainer.show import quantity, signed, study_table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (999.7, "1k"),
        (1234567, "1.23M"),
        (2.9e12, "2.9T"),
        (4e21, "4e+03E"),
    ],
)
def test_quantity(value, text):
    assert quantity(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(-0.09544, "−0.0954"), (0.09544, "+0.0954"), (0, "+0.0000")]
)
def test_a_difference_has_a_sign_and_a_true_minus(value, text):
    assert signed(value) == text


def test_the_table_of_a_study_fits_into_80_characters():
    arms = {
        "curated": (-0.05, -0.08, -0.02, "arm better"),
        "random-curated": (0.01, -0.03, 0.05, "no difference seen"),
    }
    out = io.StringIO()
    Console(file=out, width=80).print(study_table(study_record(arms)))
    lines = out.getvalue().splitlines()
    assert "…" not in out.getvalue()
    assert [
        "curated",
        "2.2000",
        "2.5000",
        "−0.0500",
        "−0.080",
        "to",
        "−0.020",
        "better",
        "×1.25",
    ] in [line.split() for line in lines]
