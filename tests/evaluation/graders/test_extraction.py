"""What of a completion is the answer."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.graders.extraction import after_thinking, boxed_answer, continue_prompt, last_box, program, whole_program


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
        ("\\boxed 5", None),
        ("the answer is 5", None),
        ("", None),
        ("<think>maybe \\boxed{1}</think>It is \\boxed{2}.", "2"),
        ("maybe \\boxed{1}</think>none", None),
        ("<think>maybe \\boxed{1}", None),
        ("<think>a</think>\\boxed{1}<think>b", None),
    ],
)
def test_boxed_answer(completion: str, answer: str | None) -> None:
    assert boxed_answer(completion) == answer


@given(st.text(alphabet="abc 123\\,.$", max_size=30).filter(lambda text: "\\" not in text), st.text(max_size=30))
def test_a_box_at_the_end_is_found_after_any_text(content: str, before: str) -> None:
    assert last_box(f"{before.replace(chr(92), '')}\\boxed{{{content}}}") == content


def test_extraction_is_linear_in_the_length() -> None:
    started = time.perf_counter()
    for text in ("\\boxed{" * 100_000, "{" * 500_000, "```python\n" * 50_000, "def f" * 100_000):
        last_box(text)
        program(text, "f")
    assert time.perf_counter() - started < 5


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
        ("```python\ndef f(x): return 1\nif __name__ == '__main__': f(2)\n```", "def f(x): return 1\nif __name__ == '__main__': f(2)\n"),
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
