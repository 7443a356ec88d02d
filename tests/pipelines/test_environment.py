"""The start-up check for import names that another distribution provides too."""

import pytest

from pipelines.environment import NAMES, check_import_names
from shards.errors import PlatformError


def test_a_clash_names_the_distribution_and_the_remedy():
    owners = {name: ["assay-corpus"] for name in NAMES} | {"trainer": ["assay-corpus", "trainer"]}
    with pytest.raises(
        PlatformError, match=r"'trainer' is also provided by trainer.*pip uninstall"
    ):
        check_import_names(owners)


def test_our_own_names_pass():
    check_import_names({name: ["assay-corpus"] for name in NAMES} | {"numpy": ["numpy"]})
    check_import_names()
