import pytest

from trainer.show import quantity


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
