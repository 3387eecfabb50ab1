"""What of a completion is the answer."""

import time

import pytest

from evaluation.graders.extraction import (
    after_thinking,
    boxed_answer,
    continue_prompt,
    program,
    whole_program,
)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("so \\boxed{5}.", "5"),
        ("\\boxed{1} then \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{1} and then \\boxed{2", "1"),
        ("\\boxed{\\text{a } \\boxed{7}}", "7"),
        ("\\fbox{3}", "3"),
        ("\\boxed {3}", "3"),
        ("{ \\boxed{3}", "3"),
        ("} \\boxed{3}", "3"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{ }", None),
        ("\\boxed 5", "5"),
        ("so $\\boxed 42$.", "42"),
        ("\\boxed B\n", "B"),
        ("\\boxed and so on", None),
        ("\\boxed I think", None),
        ("\\boxed{3}, as asked within \\boxed{}", "3"),  # the instruction repeated is no answer
        ("\\boxed{3} \\boxed{ }", "3"),
        ("\\\\boxed{5}", "5"),
        ("\\\\boxed{\\\\frac{1}{2}}", "\\frac{1}{2}"),  # escaped twice
        ("\\\\boxed{\\\\{1, 2\\\\}}", "\\{1, 2\\}"),
        (
            "x = 2 \\\\\\boxed{\\begin{matrix} 1 \\\\ 2 \\end{matrix}}",
            "\\begin{matrix} 1 \\\\ 2 \\end{matrix}",
        ),  # after a row's end
        ("the answer is 5", None),
        ("", None),
        ("<think>maybe \\boxed{1}</think>It is \\boxed{2}.", "2"),
        ("maybe \\boxed{1}</think>none", None),
        ("<think>maybe \\boxed{1}", None),
        ("<think>a</think>\\boxed{1}<think>b", None),
        ("<think>a</think>\\boxed{1}\n<think>\nb", None),
        ("<think>a</think>The literal <think> tag; \\boxed{1}", "1"),
        ("<think>a</think>The tag `<think>` opens it: \\boxed{1}", "1"),
        ('<think>a</think>x = "<think>"; \\boxed{1}', "1"),
        ("<think>the tag `</think>` ends it. \\boxed{1}", None),
        ("<think>a</think>\\boxed{1} and `</think>` ends it.", "1"),
    ],
)
def test_boxed_answer(completion: str, answer: str | None) -> None:
    assert boxed_answer(completion) == answer


@pytest.mark.parametrize("end", [
    'the sign "sale"', "I call it 'x'", "`12`", "12 = f(", "x = [", "“sale”", "‘x’", '5"', "it's", "```\nx = 1\n```",
    "(see 'x')",
    "«x»", "**12**", "$12$", "He said: \"", "'", "((",
])  # fmt: skip
@pytest.mark.parametrize("answer", ["\\boxed{12}", "\n\n\\boxed{12}", "**So** \\boxed{12}"])
def test_a_thought_may_end_in_quotation_marks_brackets_and_code(end: str, answer: str) -> None:
    assert after_thinking(f"<think>So {end}</think>{answer}") == answer
    assert after_thinking(f"So {end}</think>{answer}") == answer


@pytest.mark.parametrize("quotes", ['""', "''", "``", "()", "[]", "“”", "‘’"])
def test_quoted_tags_open_and_close_no_thought(quotes: str) -> None:
    first, last = quotes
    for tags in ("</think>", "<think>", "<think>...</think>"):
        completion = f"<think>a</think>\\boxed{{1}} within {first}{tags}{last}."
        assert after_thinking(completion) == completion.removeprefix("<think>a</think>")
        assert after_thinking(f"<think>I need **{first}{tags}{last}** and \\boxed{{1}}") is None


def test_extraction_is_linear_in_the_length() -> None:
    started = time.process_time()
    for text in (
        "\\boxed{" * 100_000,
        "{" * 500_000,
        "```python\n" * 50_000,
        "def f" * 100_000,
        "\\" * 300_000,
        "~" * 200_000 + "`",
        "def f(): x\n" * 4_000,
        "\\boxed{1}, " * 30_000,
        "\\boxed{" * 100_000 + "}" * 100_000,
        "{" * 200_000 + "}" * 200_000,
        "\\boxed{\\text{" * 30_000 + "}} and " * 30_000,
        "`<think>" * 30_000,
        "\\boxed{" + "\\text{answer " * 30_000 + "}" * 30_001,
    ):
        boxed_answer(text)
        program(text, "f")
    assert time.process_time() - started < 5


def test_a_prompt_that_opens_the_thinking_counts() -> None:
    assert after_thinking(continue_prompt("user: ?\n<think>\n", "so \\boxed{1}")) is None
    assert after_thinking(continue_prompt("user: ?\n<think>\n", "so</think>\\boxed{1}")) == "\\boxed{1}"
    assert after_thinking(continue_prompt("user: ?", "so \\boxed{1}")) == "so \\boxed{1}"


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("Here:\n```python\ndef f(x):\n    return 1\n```\nDone.", "def f(x):\n    return 1\n"),
        ("```python\ndef f(x): return 1\n```\n```python\ndef f(x): return 2\n```", "def f(x): return 2\n"),
        ("```python\ndef f(x): return 1\n```\n```python\nprint(f(3))\n```", "def f(x): return 1\n"),
        ("```python\ndef f(x): return 1\n```\n```python\ndef f(x): return 2", "def f(x): return 1\n"),
        ("```python\ndef f(x): re\n\nAgain:\n```python\ndef f(x): return 2\n```", "def f(x): return 2\n"),
        ("```\ndef f(x) return\n```", "def f(x) return\n"),  # broken, but it is the answer
        ("```py\r\nf = lambda x: 1\r\n```", "f = lambda x: 1\n"),
        ("def f(x):\n    return 1", "def f(x):\n    return 1"),
        ("Sure! def f(x):\n    return 1", None),
        ("Here:\n```python\ndef f(x):\n    return 1\n", "def f(x):\n    return 1\n"),  # the fence is never closed
        ("```python\ndef f(x):\n    return 1\n\nThis returns one.", "def f(x):\n    return 1\n\n"),
        ("def f(x):\n    return 1\n\nIt returns one.", "def f(x):\n    return 1\n\n"),
        ("1. So:\n   ```python\n   def f(x):\n       return 1\n   ```", "def f(x):\n    return 1\n"),
        ("```python\r\ndef f(x):\r\n\treturn 1\r\n```", "def f(x):\n\treturn 1\n"),
        ("```javascript\ndef f(x): return 1\n```", "def f(x): return 1\n"),
        ("```python\nclass f:\n    pass\n```\n```text\n1\n```", "class f:\n    pass\n"),
        ("```python\ndef g(x): return 1\n```", None),
        ("```python\ndef ff(x): return 1\n```", None),
        ("<think>```python\ndef f(x): return 1\n```", None),
        ("<think>```python\ndef f(x): return 1\n```</think>I do not know.", None),
        ("", None),
    ],
)
def test_program(completion: str, expected: str | None) -> None:
    assert program(completion, "f") == expected


def test_a_program_that_the_prompt_began() -> None:
    beginning = 'def f(x):\n    """Doubles."""\n'
    assert program(whole_program(beginning, "    return 2 * x\n"), "f") == f"{beginning}    return 2 * x\n\n"
    run_on = "    return 2 * x\n\n\ndef g(x):\n    return (x +"  # cut at the length limit
    found = program(whole_program(beginning, run_on), "f")
    assert found is not None
    assert "return 2 * x" in found
    assert "def g" not in found
    broken = program(whole_program(beginning, "    return 2 *\n"), "f")
    assert broken is not None  # a wrong answer, not a missing one
    assert "return 2 *" in broken


GOOD = "def f(x):\n    return 1\n"


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (f"Sure, here it is:\n\n{GOOD}", GOOD),
        (f"I import what is needed.\nIt's easy.\n\nimport math\n\n{GOOD}", f"import math\n\n{GOOD}"),
        (f"{GOOD}\nDone", f"{GOOD}\nDone"),  # a word is Python too
        (f"Here is the code: ```python\n{GOOD}```", GOOD),
        ("```python\ndef f(x):\n    return False``` \nDone.", "def f(x):\n    return False"),
        (f"[PYTHON]\n{GOOD}[/PYTHON]", f"\n{GOOD}\n"),
        (f"[PYTHON]{GOOD}[/PYTHON] [TESTS]f(1)[/TESTS]", f"{GOOD}\n"),
        (f"~~~python\n{GOOD}~~~", GOOD),
        (f"````python\n{GOOD}````", GOOD),
        (f"````markdown\n```python\n{GOOD}```\n````", GOOD),
        ("```python\n>>> def f(x):\n...     return 1\n...\n>>> f(3)\n1\n```", "def f(x):\n    return 1\n\nf(3)\n"),
        (f"Use ```f(3)```.\n```\n{GOOD}```", GOOD),
        (f"Call `f` like ```f(3)```:\n\n{GOOD}", GOOD),
        (f"```python\n{GOOD}```\nThe stub:\n```python\ndef f(x): ...\n```", GOOD),
        (f'```python\n{GOOD}```\n```python\ndef f(x):\n    """One."""\n    pass\n```', GOOD),
        (f"```python\n{GOOD}```\n```python\ndef f(x): raise NotImplementedError\n```", GOOD),
        (f"```python\n{GOOD}```\nBroken:\n```python\ndef f(x): return (\n```", GOOD),
        ("```python\ndef f(x): pass\n```", "def f(x): pass\n"),
        (
            "```python\nclass Solution:\n    def f(self, x): return 1\n```",
            "class Solution:\n    def f(self, x): return 1\n",
        ),
        (
            "<think>a</think>It prints <think> first.\n```python\ndef f(x): return '<think>'\n```",
            "def f(x): return '<think>'\n",
        ),
        (
            "```python\ndef f(x):\n    y = (\n    return 1\n\nf(1)\n```",
            "def f(x):\n    y = (\n    return 1\n\nf(1)\n",
        ),  # never mended by cutting
    ],
)
def test_a_program_in_its_surroundings(completion: str, expected: str) -> None:
    assert program(completion, "f") == expected


@pytest.mark.parametrize(
    "source",
    [
        "from math import gcd as f\n", "from math import gcd\nfrom math import (\n    comb,\n    gcd as f,\n)\n",
        "import math as f\n", "from m import f\n", "g, f = 1, abs\n", "g = f = abs\n", "f, g = abs, 1\n",
        "if True:\n    f = abs\n", "globals()['f'] = abs\n", "f: object = abs\n",
    ],
)  # fmt: skip
def test_a_name_that_is_bound_in_any_way(source: str) -> None:
    assert program(f"So:\n```python\n{source}```\nDone.", "f") == source
    assert program(source, "f") == source


@pytest.mark.parametrize("other", ["from solution import f\nprint(f(3))\n", "if f(3) == 7:\n    f = 3\n"])
def test_a_definition_at_the_margin_goes_before_a_name_that_is_bound_otherwise(other: str) -> None:
    assert program(f"```python\n{GOOD}```\nA test:\n```python\n{other}```", "f") == GOOD


@pytest.mark.parametrize(
    "text", ["print(f(3), end='')", "x = f(3)", "assert f == 3", "g(f=3)", "import ff", "import f.g"]
)
def test_a_name_that_is_only_used_is_no_program(text: str) -> None:
    assert program(f"```python\n{text}\n```", "f") is None


def test_a_completion_that_is_a_program_is_read_as_it_is() -> None:
    """Such as a row's `solution`: fences and tags in it are its own."""
    docstring = '    """One.\n\n    ```\n    def f(x): return 2\n    ```\n    """\n'
    source = f"MARK = '<think>'\ndef f(x):\n{docstring}    return 1\nf(1)\n"
    assert program(source, "f") == source
    assert program(source.replace("\n", "\r\n"), "f") == source


@pytest.mark.parametrize("quotes", ['"""', "'''"])
@pytest.mark.parametrize("language", ["", "python"])
def test_fences_in_a_docstring_end_no_block(quotes: str, language: str) -> None:
    source = f"def f(x):\n    {quotes}One.\n\n    ```{language}\n    f(1)\n    ```\n    {quotes}\n    return 1\n"
    assert program(f"First:\n```python\n{source}```\nThen:\n```\nf(3)\n```", "f") == source


BEGINNING = 'from math import pi\n\ndef f(x):\n    """One."""\n'


@pytest.mark.parametrize(
    ("completion", "found"),
    [
        ("    return pi", True),
        ("```python\n    return pi\n```", True),
        ("Here is the body:\n```python\n    y = pi\n    return y\n```\nDone.", True),
        ("    return pi\n\nThat is all.", True),
        ("```python\nreturn_value = pi\n```", False),  # not indented
        ("```python\nprint(f(3))\n```", False),
        ("", False),
        ("   ", False),
        ("It returns pi.", False),
    ],
)
def test_a_body_alone_where_the_problem_gives_the_beginning(completion: str, found: bool) -> None:
    source = program(completion, "f", BEGINNING)
    assert (source is not None and source.startswith(BEGINNING) and "pi\n" in source[len(BEGINNING) :]) is found
    assert program(completion, "f") is None
    assert program(completion, "f", '"""Write f."""\n') is None
