import unicodedata

import pytest

from dedup.characters import FOLDED, SINGLE, TABLE_SIZE, character_table


def test_every_code_point_of_the_table_is_the_oracles(oracle):
    table = character_table().tolist()
    for code in range(TABLE_SIZE):
        if unicodedata.category(chr(code)) == "Cs":  # a surrogate is no character
            assert table[code] == 0
            continue
        words = oracle.words(f"a{chr(code)}")
        if table[code] == 0:
            assert words == ["a"]
        elif table[code] & SINGLE:
            assert words == ["a", chr(table[code] & FOLDED)]
        else:
            assert words == [f"a{chr(table[code] & FOLDED)}"]


def test_folding_is_idempotent():
    table = character_table().tolist()
    folded = {entry & FOLDED for entry in table if entry}
    assert {code for code in folded if table[code] & FOLDED != code} == set()


def test_the_table_is_shared_so_nobody_may_write_it():
    with pytest.raises(ValueError, match="read-only"):
        character_table()[0] = 1
