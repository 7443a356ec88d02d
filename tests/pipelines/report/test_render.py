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
    assert "0.0125 ×1.25 1.10 to unknown arm better" in text
    arms["curated"] |= {"multiplier_ci": [None, None]}
    write_study(arms=arms)
    assert "0.0125 ×1.25 no interval arm better" in outline(render(gather(chain))).text
    arms["curated"] |= {
        "effective_data_multiplier": None, "multiplier_ci": [4.0, None],
        "multiplier_reach": 6.1, "multiplier_beyond": ">",
    }  # fmt: skip
    write_study(arms=arms)
    assert "0.0125 > ×6.10 4.00 to > 6.10 arm better" in outline(render(gather(chain))).text
    arms["curated"] |= {"multiplier_ci": [None, 0.5], "multiplier_beyond": "<"}
    write_study(arms=arms)
    assert "0.0125 < ×0.16 < 0.16 to 0.50 arm better" in outline(render(gather(chain))).text


def many_arms(make_study, make_arm, count):
    arms = make_study("d")["arms"]
    arms |= {f"arm{i}": make_arm(2.3, delta=0.01 * i) for i in range(count)}
    return arms


def test_that_some_curves_are_not_drawn_is_said(chain, write_study, make_study, make_arm):
    write_study()
    assert "2 arms" in outline(render(gather(chain))).text
    write_study(arms=many_arms(make_study, make_arm, 11))
    text = outline(render(gather(chain))).text
    assert "6 of 13 arms : the control and those that differ most from it" in text


@pytest.mark.parametrize(
    ("passed", "verdict", "bold"),
    [(True, "arm better", 1), (True, "INCONCLUSIVE", 0), (False, "INCONCLUSIVE", 0)],
)
def test_no_source_is_called_where_the_gate_failed(
    chain, write_study, make_study, passed, verdict, bold
):
    arms = make_study("d")["arms"]
    source = next(iter(arms["raw"]["by_source"]))
    found = {"documents": 7, "delta": -0.1, "interval": [-0.2, -0.05]}
    arms["curated"] |= {"verdict": verdict, "sources": {source: found}}
    write_study(arms=arms, gate_passed=passed)
    page = render(gather(chain))
    assert page.count('class="under sure"') == bold
    assert ("none is called" in page) is not passed


def test_sources_worth_and_curves_are_on_the_page_as_in_the_text(chain, write_study, make_study):
    """What is claimed by source and by cell has its interval here too (DESIGN.md, promise 5)."""
    arms = make_study("d")["arms"]
    source = next(iter(arms["raw"]["by_source"]))
    found = {"documents": 7, "delta": -0.1, "interval": [-0.2, -0.05]}
    arms["raw"] |= {"tokens_to_target": 2000.0, "area": 2.5}
    arms["curated"] |= {"sources": {source: found}, "area": 2.25}
    cell = {"cell": "s", "bytes": 10, "effect": 0.4, "interval": [-0.1, 0.9]}
    worth = {"arms": ["raw", "curated"], "cells": [cell], "left_out_error": 0, "plain_error": 0}
    write_study(arms=arms, worth=worth)
    text = outline(render(gather(chain))).text
    assert "2.3000 −0.1000 −0.2000 to −0.0500" in text
    assert "s +0.040 −0.010 to +0.090" in text
    assert "raw 2k 2.5000 curated not reached 2.2500" in text


@pytest.mark.parametrize(("count", "head"), [(0, "source"), (11, "arm")])
def test_the_longer_of_arms_and_sources_goes_down_the_page(
    chain, write_study, make_study, make_arm, count, head
):
    arms = many_arms(make_study, make_arm, count)
    for arm in arms.values():
        arm["by_source"] = dict.fromkeys(("a", "b", "c"), 2.0)
    write_study(arms=arms)
    section = render(gather(chain)).split("<h3>By source")[-1].split("</table>")[0]
    assert f"<thead><tr><th>{head}</th>" in section
    assert section.count("<tr>") == 1 + max(3, len(arms))


def test_random_subsets_that_there_are_and_that_lack(chain, write_study, make_study, make_arm):
    arms = make_study("d")["arms"]
    arms["curated"] |= {"available_tokens": 10, "random_delta": -0.2, "random_ci": [-0.3, -0.1]}
    selections = {"arms": {"raw": "1", "curated": "1", "small": "1"}}
    write_study(arms=arms, study=selections)
    words = "random subset curated − random-curated: −0.2000 (−0.3000 to −0.1000)"
    assert words in outline(render(gather(chain))).text
    arms["small"] = make_arm(2.3, delta=0.0, available_tokens=10)
    arms["random-curated"] = make_arm(2.4, delta=0.1, verdict="INCONCLUSIVE")
    write_study(arms=arms, study=selections)
    text = outline(render(gather(chain))).text
    assert f"{words}, INCONCLUSIVE; none for small: less data alone might explain them" in text
    arms["small"] |= {"available_tokens": 1000}
    arms["random-curated"] |= {"available_tokens": 1009}
    mixture = {"arms": {"raw": "1"}, "mixtures": {"small": {}}}
    for verdict, said in (
        ("INCONCLUSIVE", "none for small: less data alone might explain them"),
        ("arm worse", "none for small: random-curated, no larger, shows what less data alone does"),
    ):
        arms["random-curated"] |= {"verdict": verdict}
        write_study(arms=arms, study=mixture)
        assert said in outline(render(gather(chain))).text
    write_study(study={"budget": "unique"})
    assert "random subset none is needed" in outline(render(gather(chain))).text


def test_arms_left_out_of_the_fit_of_repeated_data_are_named(chain, write_study):
    fit = {"r_d_star": None, "r_d_interval": None, "arms": ["raw"], "reason": "no"}
    write_study(repeats=fit | {"left_out": ["repeat-8"]})
    text = outline(render(gather(chain))).text
    assert "not determined: no; left out, since they did not pass the gate: repeat-8" in text


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
    weak = ", but its interval includes no difference" if held else ""
    text = outline(render(gather(chain))).text.replace(" ,", ",").replace(" :", ":")
    assert f"prediction {words}{weak}: curated was foretold" in text


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
