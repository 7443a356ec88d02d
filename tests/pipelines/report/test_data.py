from pipelines.report.data import gather, waterfall
from shards.manifest import Counts


def test_waterfall_goes_from_read_to_kept_without_a_gap():
    total = Counts(
        read=10,
        kept=4,
        dropped=6,
        bytes_read=100,
        bytes_kept=50,
        drops={"near_duplicate": 3, "rule_a": 1, "rule_b": 2},
    )
    steps = waterfall(total, {"near_duplicate": 30, "rule_a": 5, "rule_b": 15})
    assert [step.reason for step in steps] == ["read", "rule_b", "rule_a", "near_duplicate", "kept"]
    left = [(step.first_document, step.first_byte) for step in steps]
    assert left == [(0, 0), (8, 85), (7, 80), (4, 50), (0, 0)]
    taken = [(step.documents, step.bytes) for step in steps]
    assert taken == [(10, 100), (2, 15), (1, 5), (3, 30), (4, 50)]


def test_a_report_holds_what_the_chain_holds(chain):
    report = gather(chain)
    documents, total = report.documents, report.parts.curated.content.total
    assert documents.waterfall[0].documents == total.read
    assert documents.waterfall[-2].first_byte == total.bytes_kept
    assert {row.name for row in documents.sources} == {"s<0>", "s<1>", "s<2>", "unnamed"}
    assert documents.pairs
    assert report.parts.study is None
