"""DMOJ's built-in checkers: what each of them accepts (read off judge-server's own, at commit f098cd3)."""

import pytest

from evaluation.graders.programs.dmoj import RULES
from evaluation.graders.programs.outputs import COMPARISONS, WITH_TOLERANCE, Comparison, same

TABLE: dict[str, list[tuple[bytes, bytes, bool]]] = {
    "dmoj_standard": [
        (b"1 2\n3", b"1 2\n3\n", True),
        (b"\n 1\t2 \r\n\n\n3  \n\n", b"1 2\n3\n", True),
        (b"1\n2\n3", b"1 2\n3\n", False),
        (b"1 2 3", b"1 2\n3\n", False),
        (b"1.0", b"1", False),
        (b"", b"\n", True),
        (b"1", b"", False),
    ],
    "dmoj_identical": [(b"1\n", b"1\n", True), (b"1", b"1\n", False)],
    "dmoj_floats": [
        (b"x 1.0005", b"x 1\n", True),
        (b"1000.9", b"1000", True),
        (b"1.002", b"1", False),
        (b"0.0009", b"0", True),
        (b"nan", b"nan", False),
        (b"inf", b"inf", False),
        (b"1\n1", b"1 1", False),
        (b"1\n\n1", b"1\n1", True),
        (b"1\n ", b"1\n", False),
        (b"X 1", b"x 1", False),
        (b"x", b"1", False),
    ],
    "dmoj_floatsabs": [(b"1000.9", b"1000", False), (b"1000.0009", b"1000", True)],
    "dmoj_floatsrel": [(b"1000.9", b"1000", True), (b"0.0009", b"0", False), (b"-1000.9", b"-1000", True)],
    "dmoj_rstripped": [(b"1 \n2\n", b"1\n2\n", True), (b"1\n\n2\n", b"1\n2\n", False), (b" 1\n", b"1\n", False)],
    "dmoj_rstripped_filled": [(b"1\n\n2 ", b"1\n2\n", True), (b"1\n \n2", b"1\n2\n", False)],
    "dmoj_linecount": [(b" 1 \n\n2", b"1\n2\n", True), (b"1", b"1\n2\n", False), (b"1\n2\n3", b"1\n2\n", False)],
    "dmoj_sorted": [(b"2 3\n1", b"1\n2  3\n", True), (b"3 2\n1", b"1\n2 3\n", False), (b"1\n1", b"1\n2", False)],
    "dmoj_unordered": [(b"3 2\n1", b"1\n2 3\n", True), (b"3 2", b"1\n2 3\n", False)],
    "dmoj_easy": [(b"C b\na", b"abc\n", True), (b"ab", b"abc\n", False)],
}


@pytest.mark.parametrize("name", RULES)
def test_what_a_checker_accepts(name: Comparison) -> None:
    rows = TABLE[name]
    assert {right for *_, right in rows} == {True, False}, "the table has outputs of both kinds"
    for got, expected, right in rows:
        assert same(got, expected, name, 1e-3) is right, (got, expected)


def test_every_rule_is_a_comparison_and_has_its_table() -> None:
    assert set(RULES) == set(TABLE) == {name for name in COMPARISONS if name.startswith("dmoj_")}
    assert set(WITH_TOLERANCE) == {"floats", "dmoj_floats", "dmoj_floatsabs", "dmoj_floatsrel"}
