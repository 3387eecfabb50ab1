"""Columns of the viewer: a text on one line."""

from pipeline.browse.samples import _line


def test_the_lines_of_a_program_stay_apart_on_one_line() -> None:
    assert _line("x = 1  # one\n\n\ty = 2") == "x = 1 # one ⏎ y = 2"
    assert _line(" one  line ") == "one line"
