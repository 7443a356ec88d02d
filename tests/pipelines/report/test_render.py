import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from pipelines.report.data import gather
from pipelines.report.render import excerpt, measure, percent, render, seconds, visible

VOID = {"meta", "br", "link", "img", "input", "rect", "path"}


class Outline(HTMLParser):
    """Checks that tags nest, and collects tags, attributes and text."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], set(), [], []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def outline(html):
    parsed = Outline()
    parsed.feed(html)
    parsed.close()
    assert parsed.open == []
    return parsed


@pytest.fixture
def whole(chain, write_study):
    write_study()
    return render(gather(chain))


def test_the_file_needs_nothing_but_itself(whole):
    page = outline(whole)
    assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "base"})
    assert not [value for name, value in page.attributes if name.startswith("on")]
    links = {value for name, value in page.attributes if name in {"href", "src", "action"}}
    assert all(link.startswith("#") for link in links)
    assert "@import" not in whole
    assert not re.search(r"url\(", whole)


def test_texts_sources_and_urls_are_escaped(whole):
    page = outline(whole)
    assert "<script" not in whole
    assert "onerror=alert" in page.text  # it is there, as text
    assert "javascript:alert" in page.text
    assert "s<0>" in page.text
    assert "\u202e" not in whole
    assert "\x07" not in whole


def test_every_section_has_its_numbers(whole, chain):
    text = outline(whole).text
    total = json.loads((chain / "curated" / "manifest.json").read_text())["content"]["total"]
    assert f"{total['kept']:,} kept + {total['dropped']:,} dropped" in text
    for reason in total["drops"]:
        assert reason in text
    assert "With 3 seeds, curated is better than raw" in text
    assert "−0.1400 to −0.0600" in text
    assert "Gate passed:" in text
    assert "Not run" not in text
    assert "characters that are no white space; kept from 50" in text


def test_links_lead_to_sections(whole):
    page = outline(whole)
    ids = {value for name, value in page.attributes if name == "id"}
    assert {value[1:] for name, value in page.attributes if name == "href"} <= ids


@pytest.mark.parametrize(
    ("missing", "command"),
    [("curated", "assay curate"), ("tokens", "assay tokenize"), ("runs", "assay study")],
)
def test_missing_parts_are_named_as_not_run(chain, write_study, missing, command):
    write_study()
    shutil.rmtree(chain / missing)
    text = outline(render(gather(chain))).text
    assert "Not run." in text
    assert command in text


def test_no_study_is_inconclusive(chain):
    assert "INCONCLUSIVE : no study was run." in outline(render(gather(chain))).text


def test_a_failed_gate_stands_in_the_verdict(chain, write_study):
    write_study(gate_passed=False, gate="too little", sentence="INCONCLUSIVE: too little")
    text = outline(render(gather(chain))).text
    assert "INCONCLUSIVE : too little" in text
    assert "Gate failed:" in text


def test_an_arm_has_its_own_level_p_and_worth(chain, write_study, make_study):
    arms = make_study("d")["arms"]
    arms["curated"] |= {
        "level": 0.025, "p_value": 0.0125, "effective_data_multiplier": 1.25,
        "multiplier_ci": [1.1, None],
    }  # fmt: skip
    write_study(arms=arms)
    text = outline(render(gather(chain))).text
    assert "Holm's procedure tests the arm (curated: 97.5 %)" in text
    assert "0.0125 ×1.25 (1.10 to unknown) arm better" in text


@pytest.mark.parametrize(
    ("held", "words"), [(None, "not tested"), (True, "held"), (False, "did not hold")]
)
def test_a_prediction_has_its_answer(chain, write_study, held, words):
    write_study(
        prediction={
            "arm": "curated", "predicted": -0.1, "low": -0.2, "high": 0.0, "measured": -0.1,
            "interval": [-0.14, -0.06], "same_dataset": True, "held": held,
        }
    )  # fmt: skip
    assert f"prediction {words} : curated was foretold" in outline(render(gather(chain))).text


def test_planned_contrasts_and_an_arm_that_failed_alone(chain, write_study):
    contrast = {
        "arm": "curated", "against": "raw", "delta": -0.1, "ci_low": -0.2, "ci_high": 0.05,
        "seed_ci": [0, 1], "document_ci": [0, 1], "level": 0.05, "p_value": 0.25,
        "verdict": "no difference seen",
    }  # fmt: skip
    assert "Planned contrasts" not in outline(render(gather(chain))).text
    write_study(contrasts=[contrast], gate="2 of 6 runs did not beat the models")
    text = outline(render(gather(chain))).text
    assert "Planned contrasts" in text
    assert "curated − raw −0.1000 −0.2000 to +0.0500 0.2500 no difference seen" in text
    assert "Gate passed in part: 2 of 6" in text


def test_a_single_run_compares_nothing(chain):
    run = {
        "dataset_id": "0" * 32, "select": "True", "seed": 1, "config": {"dim": 8},
        "parameters": 10, "tokens": 2, "epochs": 1.0, "bpb": 2.125,
        "baselines": {"unigram": 3, "bigram": 2.5}, "facts": {"seconds": 75.0},
        "curve": [{"tokens": 1, "valid_bpb": 2.5}, {"tokens": 2, "valid_bpb": 2.125}],
    }  # fmt: skip
    (chain / "runs" / "run.json").write_text(json.dumps(run))
    text = outline(render(gather(chain))).text
    assert "a single run, so there is nothing to compare" in text
    assert "2.1250" in text
    assert "training 1 min 15 s" in text
    assert f"Training used tokens dataset {'0' * 32}" in text


def test_only_a_tokenizer_is_still_a_report(chain):
    for name in ("curated", "tokens", "runs"):
        shutil.rmtree(chain / name)
    assert "512" in outline(render(gather(chain))).text


def test_numbers_and_texts():
    assert percent(1, 0) == "–"
    assert percent(1, 8) == "12.5\u202f%"
    assert [measure(value) for value in (50.0, 0.79961, 100_597)] == ["50", "0.7996", "100,597"]
    assert [seconds(value) for value in (7.25, 200, 7500)] == ["7.2 s", "3 min 20 s", "2 h 05 min"]
    assert visible("a\0b\u202ec\td\n") == "a␀b�c\td\n"
    assert excerpt("x" * 301).endswith("… [1 more characters]")
    assert excerpt("short") == "short"
