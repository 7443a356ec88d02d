from click.testing import CliRunner

from pipelines.commands.report import report_command
from pipelines.report.key import is_sealed, report_key, seal


def report(chain):
    done = CliRunner().invoke(report_command, [str(chain), "--quiet"], catch_exceptions=False)
    return done.output.startswith("up to date"), (chain / "report.html").read_bytes()


def test_a_report_is_made_again_only_if_a_record_changed(chain, write_study):
    write_study()
    first, page = report(chain)
    again, same = report(chain)
    assert (first, again, same) == (False, True, page)
    write_study(sentence="Another sentence.")
    assert report(chain)[0] is False


def test_a_damaged_report_is_made_again(chain):
    _, page = report(chain)
    (chain / "report.html").write_bytes(page.replace(b"Assay", b"Essay", 1))
    assert report(chain) == (False, page)


def test_the_key_follows_from_the_chain_and_the_seal_from_the_page(chain, tmp_path):
    path = tmp_path / "x.html"
    path.write_bytes(seal(b"<p>page</p>", report_key(chain)))
    assert is_sealed(path, report_key(chain))
    assert not is_sealed(path, "0" * 32)
    assert not is_sealed(tmp_path / "none.html", report_key(chain))
    path.write_bytes(b"<p>page</p>")
    assert not is_sealed(path, report_key(chain))
