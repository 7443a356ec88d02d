import socket
import sys
import types
import urllib.error
import urllib.request

import pytest

from shards.errors import PlatformError
from trainer.data import read_documents
from trainer.loop import train
from trainer.monitor import CONTENT_TYPE, HELP, Monitor, open_monitor
from trainer.progress import Reporter


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def get(port, path="/metrics"):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        assert answer.headers["Content-Type"] == CONTENT_TYPE
        return answer.read().decode()


class Scraper(Reporter):
    """Asks for the numbers after the fourth step, as Prometheus would."""

    def __init__(self, port):
        super().__init__(quiet=True)
        self.port, self.text = port, ""

    def step(self, step, loss, tokens_per_s):
        if step == 4:
            self.text = get(self.port)
            self.loss = loss


def test_a_run_can_be_scraped_while_it_trains_and_its_port_is_free_after(
    dataset, tiny, tmp_path, port
):
    valid = read_documents(dataset, "split == 'valid'", 400)
    scraper = Scraper(port)
    view = dataset.select("split == 'train'")
    train(view, valid, tiny(prometheus_port=port), tmp_path / "run", scraper)
    lines = scraper.text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(values["assay_loss"]) == scraper.loss
    assert values["assay_step"] == "4.0"
    assert float(values["assay_tokens_per_s"]) > 0
    assert float(values["assay_mfu"]) > 0
    assert float(values["assay_valid_bpb"]) > 0
    assert float(values['assay_valid_bpb_by_source{source="one"}']) > 0
    typed = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(typed) == len(set(typed)) == len(HELP) - 2  # all but those of many ranks
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


def test_labels_are_escaped_and_other_paths_are_not_found(tiny, tmp_path, port):
    with open_monitor(tiny(prometheus_port=port), tmp_path, pytest.fail, first=True) as monitor:
        monitor.update(1, {("valid_bpb", (("source", 'a"\\\n'),)): 1.5})
        assert r'assay_valid_bpb{source="a\"\\\n"} 1.5' in get(port)
        with pytest.raises(urllib.error.HTTPError, match="404") as error:
            get(port, "/")
        error.value.close()


def test_a_port_that_is_taken_is_said_and_other_ranks_have_none(tiny, tmp_path, port):
    notes = []
    config = tiny(prometheus_port=port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with open_monitor(config, tmp_path, notes.append, first=False) as monitor:
            assert not monitor.active
        assert notes == []
        with open_monitor(config, tmp_path, notes.append, first=True) as monitor:
            assert not monitor.active
    assert notes[0].startswith(f"train.prometheus_port = {port}: Address already in use")


def test_values_stay_until_they_are_measured_again():
    monitor = Monitor()
    monitor.update(1, {("valid_bpb", ()): 2.0, ("loss", ()): 3.0})
    monitor.update(2, {("loss", ()): 2.5})
    assert monitor.text().splitlines()[2::3] == ["assay_loss 2.5", "assay_valid_bpb 2.0"]


def test_tensorboard_gets_every_step_where_it_is_installed(tiny, tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder):
            written.append(folder)

        def add_scalar(self, *arguments):
            written.append(arguments)

        def close(self):
            written.append("closed")

    name = "torch.utils.tensorboard"
    stub = types.ModuleType(name)
    stub.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, name, stub)
    with open_monitor(tiny(tensorboard=True), tmp_path, pytest.fail, first=True) as monitor:
        monitor.update(7, {("loss", ()): 3.0, ("valid_bpb", (("source", "one"),)): 2.0})
    scalars = [("loss", 3.0, 7), ("valid_bpb/one", 2.0, 7)]
    assert written == [str(tmp_path / "tensorboard"), *scalars, "closed"]


def test_tensorboard_that_is_not_installed_is_an_error(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with (
        pytest.raises(PlatformError, match=r"train\.tensorboard.*assay-corpus\[tensorboard\]"),
        open_monitor(tiny(tensorboard=True), tmp_path, pytest.fail, first=True),
    ):
        pass
