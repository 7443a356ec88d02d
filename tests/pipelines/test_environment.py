"""Import names that another distribution provides too, and the code that runs and is shipped."""

import hashlib
import zipfile
from importlib import resources
from pathlib import Path

import pytest

from pipelines.environment import NAMES, check_import_names, shipped_packages
from pipelines.runners import RunnerOptions, check_policy
from shards.errors import PlatformError, RecipeError


def test_a_clash_names_the_distribution_and_the_remedy():
    owners = {name: ["assay-corpus"] for name in NAMES} | {"trainer": ["assay-corpus", "trainer"]}
    with pytest.raises(
        PlatformError, match=r"'trainer' is also provided by trainer.*pip uninstall"
    ):
        check_import_names(owners)


def test_our_own_names_pass():
    check_import_names({name: ["assay-corpus"] for name in NAMES} | {"numpy": ["numpy"]})
    check_import_names()


@pytest.fixture
def wheel(tmp_path):
    """A wheel of the installed modules, as `make wheel` builds it but for its metadata."""
    path = tmp_path / "assay_corpus-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        for name in NAMES:
            root = Path(str(resources.files(name)))
            for module in root.rglob("*.py"):
                file.write(module, f"{name}/{module.relative_to(root)}")
        file.writestr("assay_corpus-0.1.0.dist-info/METADATA", "Name: assay-corpus")
    return path


def test_a_wheel_of_the_code_that_runs_is_shipped_with_its_hash(wheel):
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    for words in ((f"--extra_package={wheel}",), ("--extra_package", str(wheel))):
        assert shipped_packages(("--a=1", *words, "--b")) == {wheel.name: sha256}
    assert shipped_packages(("--a", "b")) == shipped_packages(()) == {}


def test_a_wheel_of_other_code_is_refused(wheel):
    with zipfile.ZipFile(wheel, "a") as file:
        file.writestr("shards/new.py", "")
    with pytest.raises(RecipeError, match="other code than the Assay that runs here"):
        check_policy(RunnerOptions(beam_args=(f"--extra_package={wheel}",)))


def test_a_package_that_cannot_be_shipped_is_found_before_the_job(tmp_path):
    with pytest.raises(RecipeError, match=r"gone\.whl: No such file"):
        shipped_packages(("--extra_package", str(tmp_path / "gone.whl")))
    broken = tmp_path / "assay_corpus-1-py3-none-any.whl"
    broken.write_bytes(b"PK")
    with pytest.raises(RecipeError, match="is no wheel"):
        shipped_packages((f"--extra_package={broken}",))
