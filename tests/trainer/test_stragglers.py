from trainer.stragglers import WINDOW, RankTimes


def test_the_slowest_rank_is_named_with_its_wait_and_only_when_it_is_slow():
    times = RankTimes()
    assert times.report() is None
    for step in range(2 * WINDOW):
        slow = [0.020, 0.012] if step < WINDOW else [0.0105, 0.001]
        times.add([[0.010, 0.001], slow, [0.011, 0.001]])
        said = times.report()
        if step == WINDOW - 1:
            assert said == (
                "rank 1 is slow: 20.0 ms a step of its own, 12.0 of them waiting for data;"
                " typical are 11.0 ms"
            )
        else:
            assert said is None
    assert [round(fact["seconds"], 3) for fact in times.facts()] == [2.0, 3.05, 2.2]


def test_of_two_ranks_the_slower_one_is_named():
    times = RankTimes()
    for _ in range(WINDOW):
        times.add([[0.02, 0.0], [0.01, 0.0]])
    assert times.report().startswith("rank 0 is slow: 20.0 ms")
