"""Which boxes of a text are its answer, and what of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.graders.boxes import answer_of


@pytest.mark.parametrize(
    "text",
    [
        "So \\boxed{4}, \\boxed{9}.", "$\\boxed{4}$ and $\\boxed{9}$", "\\boxed{4}\\text{ or }\\boxed{9}",
        "$x=\\boxed{4}$ or $x = \\boxed{9}$.", "$x_1=\\boxed{4}$, $x_2=\\boxed{9}$", "either \\boxed{4} or \\boxed{9}",
        "\\[x=\\boxed{4} \\quad\\text{and}\\quad x=\\boxed{9}.\\]", "\\boxed{4} \\boxed{9}",
        "$\\boxed{4}$ $\\boxed{9}$",
        "The solutions are\n\n$$x=\\boxed{4}$$\n\nand\n\n$$x=\\boxed{9}.$$", "\\boxed{4}; \\boxed{9}",
        "The least is \\boxed{4} and the greatest is \\boxed{9}.", "(a) \\boxed{4} (b) \\boxed{9}",
        "(a) \\boxed{4}\n(b) \\boxed{9}", "- $\\boxed{4}$\n- $\\boxed{9}$", "* $x = \\boxed{4}$\n* $y = \\boxed{9}$",
        "**\\boxed{4}** and **\\boxed{9}**", "\\boxed{4} cm and \\boxed{9} cm", "\\boxed 4 and \\boxed 9",
        "\\fbox{4} and \\fbox{9}", "\\boxed{4}/\\boxed{9}", "\\\\boxed{4}, \\\\boxed{9}",
        "x=\\boxed{4}, \\\\ y=\\boxed{9}",
        "解为 $x=\\boxed{4}$ 或 $x=\\boxed{9}$。", "\\boxed{4}、\\boxed{9}", "\\{\\boxed{4}, \\boxed{9}\\}",
        "The roots are $\\boxed{4}$ (twice) and $\\boxed{9}$.",
        "First \\boxed{1}. No. \\boxed{4} and \\boxed{9}",
    ],
)  # fmt: skip
def test_boxes_that_one_sentence_lists_are_one_answer(text: str) -> None:
    assert answer_of(text) == "4, 9"


@pytest.mark.parametrize(
    "text",
    [
        "First \\boxed{4}. That is wrong. So \\boxed{9}", "\\boxed{4}, wait, \\boxed{9}", "\\boxed{4}? No: \\boxed{9}",
        "First \\boxed{4}, but that is wrong, so it is \\boxed{9}", "\\boxed{4} then \\boxed{9}",
        "$3\\cdot\\boxed{4} = \\boxed{9}$", "\\boxed{4} \\approx \\boxed{9}", "\\boxed{4} \\Rightarrow \\boxed{9}",
        "\\boxed{4}\n\n\\boxed{9}", "\\boxed{4}\n\\boxed{9}", "x=\\boxed{4} \\\\ y=\\boxed{9}",
        "\\boxed{4}: \\boxed{9}",
        "2x = \\boxed{4}, hence x = \\boxed{9}", "\\boxed{4} and the answer is \\boxed{9}", "\\boxed{4} + \\boxed{9}",
        "1. We have \\boxed{4}\n2. So it is \\boxed{9}", "\\boxed{4}, \\ldots, \\boxed{9}",
        "\\boxed{4}，所以 \\boxed{9}",
        "\\begin{align*}x &= \\boxed{4} \\\\\n&= \\boxed{9}\\end{align*}", "\\boxed{4}, " + "x" * 300 + ", \\boxed{9}",
        "\\[\\boxed{4}\\]\nNow, we get \\[\\boxed{9}\\]",
    ],
)  # fmt: skip
def test_a_box_that_is_corrected_concluded_from_or_rewritten_is_no_part_of_the_answer(text: str) -> None:
    assert answer_of(text) == "9"


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{9}, not \\boxed{4}", "$\\boxed{9}$ and not $\\boxed{4}$.", "It is \\boxed{9} rather than \\boxed{4}.",
        "\\boxed{9} instead of \\boxed{4}", "\\boxed{9} (not \\boxed{4})", "\\boxed{9}, not \\boxed{4}, not \\boxed{5}",
        "\\boxed{9}\\text{, not }\\boxed{4}", "not \\boxed{4} but \\boxed{9}", "\\boxed{4}? Not at all: \\boxed{9}",
        "\\boxed{4} is not right, it is \\boxed{9}", "\\boxed{4} is not it. \\boxed{9}", "Not \\boxed{9}",
    ],
)  # fmt: skip
def test_a_box_that_is_ruled_out_is_not_the_answer(text: str) -> None:
    assert answer_of(text) == "9"


@pytest.mark.parametrize(
    "text", ["\\boxed{\\frac12} or \\boxed{0.5}", "\\boxed{0.50} and \\boxed{0.5}", "\\boxed{0.5}, \\boxed{0.5}"]
)
def test_one_value_in_two_boxes_is_named_once(text: str) -> None:
    assert answer_of(text) == "0.5"
    assert answer_of("\\boxed{0.0} or \\boxed{0}") == "0"


@pytest.mark.parametrize(
    "placeholder",
    [
        "...", "…", "\\ldots", "\\dots", "\\cdots", "\\text{...}", " ", "\\ ", "~", "\\quad", "\\,", "___",
        "\\_\\_\\_", "?",
        "\\square", "\\phantom{12}", "\\hspace{1cm}", "answer", "ANSWER", "\\text{answer}", "\\textbf{Answer}",
        "your answer", "\\text{your answer here}", "the final answer", "<answer>", "[answer]", "your\\_answer", "$...$",
        "\\text{the correct letter}", "\\text{numerical value}", "\\mathrm{result}", "答案", "", "{}",
    ],
)  # fmt: skip
def test_a_placeholder_is_no_answer(placeholder: str) -> None:
    box = f"\\boxed{{{placeholder}}}"
    assert answer_of(f"The answer is \\boxed{{12}}. I put it within {box} as asked.") == "12"
    assert answer_of(f"\\boxed{{12}} (in the form {box})") == "12"
    assert answer_of(f"I put it within {box}.") is None


@pytest.mark.parametrize(
    "content",
    [
        "n", "0", "\\emptyset", "\\{\\}", "\\text{no solution}", "\\text{none}", "1, 2, \\ldots", "A", "x", "-",
        "\\text{solution set is empty}", "\\text{a prime number}", "(1,2)", "\\text{even}",
    ],
)  # fmt: skip
def test_what_may_be_an_answer_is_no_placeholder(content: str) -> None:
    assert answer_of(f"\\boxed{{3}}. So \\boxed{{{content}}}") == content


@pytest.mark.parametrize(
    "content",
    [
        "\\text{The answer is } 5", "Answer: 5", "\\textbf{Answer:} 5", "\\text{Answer: }5", "The final answer is: 5",
        "Answer = 5", "\\text{Therefore, the answer is } 5", "\\text{Ans: }5", "\\text{Solution: } 5", "**Answer:** 5",
        "答案：5", "答案是5", "\\text{Answer}: 5", "\\text{Answer} = 5", "\\text{Answer }5", "\\mathrm{Answer:}\\ 5",
        "\\text{Answer:}~5", "Answer is 5", "\\text{Answer:}\\;5", "\\text{Answer:}\\quad 5", "THE ANSWER IS 5",
    ],
)  # fmt: skip
def test_a_phrase_in_the_box_is_left_out(content: str) -> None:
    assert answer_of(f"\\boxed{{{content}}}") == "5"


def test_words_after_a_phrase_keep_their_font() -> None:
    assert answer_of("\\boxed{\\text{The answer is 5 cm}}") == "\\text{5 cm}"


@given(st.lists(st.integers(-99, 99), min_size=1, max_size=5, unique=True), st.sampled_from([", ", " and ", "$ or $"]))
def test_all_listed_values_are_the_answer_and_no_fewer(values: list[int], listing: str) -> None:
    answer = answer_of(listing.join(f"\\boxed{{{one}}}" for one in values))
    assert answer == ", ".join(map(str, values))
    assert answer_of(f"\\boxed{{{answer}}}") == answer  # as votes are compared


@pytest.mark.slow
@given(
    st.text(alphabet="xyz 123\\,$", max_size=30).filter(lambda text: "\\" not in text and text.strip(" $,")),
    st.text(max_size=30),
)
def test_a_box_at_the_end_is_found_after_any_text(content: str, before: str) -> None:
    assert answer_of(f"{before.replace(chr(92), '')}\\boxed{{{content}}}") == content.strip()
