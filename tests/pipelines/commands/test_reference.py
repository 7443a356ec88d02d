from click.testing import CliRunner

from pipelines.commands.reference import reference_command
from tests.pipelines.conftest import make_documents, write_jsonl


def test_a_reference_is_saved_and_its_hash_said(tmp_path):
    good = write_jsonl(tmp_path / "good.jsonl", make_documents(40))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[input]\npaths = ["{good}"]\n[signals.reference]\npaths = ["{good}"]\n')
    out = tmp_path / "good.ref"
    arguments = [str(recipe), "--out", str(out)]
    dry = CliRunner().invoke(reference_command, [*arguments, "--dry-run"])
    assert (dry.exit_code, out.exists()) == (0, False)
    done = CliRunner().invoke(reference_command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output.startswith(f"saved {out}: signals.reference.hash = ")
    assert out.stat().st_size > 1000
