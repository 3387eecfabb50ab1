"""Values come back exactly, and are compared as Python compares them."""

import itertools
import time

import pytest

from evaluation.sandbox import UNSENDABLE, Job, Level, Sandbox, comparison, values
from evaluation.sandbox.child import program
from tests.evaluation.sandbox.cases import run, value_of


@pytest.mark.parametrize("level", ["namespaces", "rlimits"])
def test_values_come_back_exactly(request: pytest.FixtureRequest, level: Level) -> None:
    if level == "namespaces":
        request.getfixturevalue("isolated")
    sent: list[object] = [
        None,
        True,
        2**5000,
        -1,
        0.1,
        float("inf"),
        1j,
        "é\ud800\n",
        b"\x00",
        [1, (2,)],
        {1, "a"},
        {(1, 2): [3]},
    ]
    sent.append(frozenset({1.5}))
    with Sandbox(level=level) as sandbox:
        assert sandbox.level == level
        outcome = sandbox.run(Job([f"inf = float('inf')\nvalues = {sent!a}"], expressions=["values", "object()"]), 5.0)
    assert outcome.status == "done"
    assert outcome.values[0] == sent
    assert [type(value) for value in outcome.values[0]] == [type(value) for value in sent]
    assert outcome.values[1] is UNSENDABLE


def test_each_call_gets_its_own_arguments(sandbox: Sandbox) -> None:
    job = Job(["def f(x):\n    x.append(1)\n    return x"], entry_point="f", inputs=[[[]], [[5]]])
    assert sandbox.run(job, 5.0).values == [[1], [5, 1]]


EQUAL = [
    *(
        ("1", "1.0"),
        ("True", "1"),
        ("0", "-0.0"),
        ("2**60", "2.0**60"),
        ("10**400", "10**400"),
        ("(1+0j)", "1"),
        ("1.5", "1.5+0j"),
    ),
    *(("float('nan')", "float('nan')"), ("float('inf')", "float('inf')"), ("b'a'", "b'a'"), ("'\\ud800'", "'\\ud800'")),
    *(("{1, 'a'}", "frozenset({'a', 1.0})"), ("{1: 2, 'b': (3,)}", "{'b': (3.0,), True: 2}")),
    ("[float('nan'), {1: float('nan')}]", "[float('nan'), {1: float('nan')}]"),
]


UNEQUAL = [
    *(
        ("1", "'1'"),
        ("[1]", "(1,)"),
        ("2**60 + 1", "2.0**60"),
        ("10**400", "float('inf')"),
        ("None", "False"),
        ("'a'", "b'a'"),
        ("1j", "1"),
    ),
    *(
        ("{1}", "[1]"),
        ("{1: 2}", "{1: 3}"),
        ("[1, 2]", "[1]"),
        ("{1: 2}", "{1, 2}"),
        ("'i1'", "1"),
        ("float('nan')", "None"),
    ),
    *(("object()", "object()"), ("['[\"?\"]']", "[object()]")),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other", "same"), [(*pair, True) for pair in EQUAL] + [(*pair, False) for pair in UNEQUAL]
)
def test_equal_is_what_python_says_and_nan_is_nan(sandbox: Sandbox, one: str, other: str, same: bool) -> None:
    """In both directions; alone, within a container, and as the digest of a long one."""
    for wrap in ("{}", "[0, {}]", "[{}] * 60_000"):
        texts = sandbox.run(Job([""], expressions=[wrap.format(one), wrap.format(other)]), 10.0).texts
        for wanted, text in (texts, texts[::-1]):
            if '["?"]' in wanted:
                with pytest.raises(values.MalformedValue):
                    comparison.Expected(wanted)
            else:
                assert comparison.Expected(wanted).equals(text) is same


def test_sets_and_dicts_whose_keys_hash_alike_are_not_built() -> None:
    alike = ", ".join(f'"i{k * (2**61 - 1):x}"' for k in range(1, 20_000))
    for text in (f'["S", {alike}]', f'["F", {alike}]', f'["d", {alike}, {alike}]'):
        with pytest.raises(values.MalformedValue):
            values.unpack(text)
    powers = {2**n for n in range(2000)}  # honest, though many hash alike
    assert values.unpack(values.write(powers)) == powers


def test_what_is_hashed_at_once_has_the_hash_of_what_is_not() -> None:
    """Equal values whose parts are of one type, which are written as they are, and of several, which are not."""
    for one, same, other in (
        ([1, 2, 3], [True, 2.0, 3], [1, 2, "3"]),
        ([("a", "b")] * 5000, (("a", "b") for _ in range(5000)), [("a", "b")] * 4999 + [("ab", "")]),
        ([2**60, 5], [2.0**60, 5.0], [2**60 + 1, 5]),
        ([[1], [], [2, 3]], [[1.0], [], [2, 3]], [[1, 2], [], [3]]),
        ([{1: "a", "b": {2}}], [{"b": frozenset({2.0}), True: "a"}], [{1: "a", "b": [2]}]),
        ([{"x", "y"}], [{"y", "x"}], [("S", "x", "y")]),
        ([1 + 2j, 0.5], [1 + 2j, complex(0.5)], [1 - 2j, 0.5]),
        ([float("nan"), -0.0], [-float("nan"), 0], [None, 0]),
        ([None, b"a"], [None, b"a"], [None, "a"]),
    ):
        assert program.digest(one) == program.digest(list(same)) != program.digest(other)
    with pytest.raises(TypeError):
        program.digest([1, [object()]])


@pytest.mark.parametrize("text", ["'x' * 10**7", "[0] * 10**7", "1 << 10**8", "{0: [1] * 10**7}", "[[]] * 10**7"])
def test_long_values_are_told_at_once(text: str) -> None:
    value = eval(text)
    started = time.process_time()
    assert program.is_long(value)
    assert time.process_time() - started < 0.02


@pytest.mark.slow
def test_hashing_a_long_result_takes_little_more_than_making_it() -> None:
    """In Mbpp/255 one has 128 million strings, and the time is the program's."""
    started = time.process_time()
    value = list(itertools.combinations_with_replacement(["Dog", "Cat", "Bird", "Fish"], 77))
    made = time.process_time()
    program.pack(value)
    assert time.process_time() - made < 20 * (made - started)


def test_long_results_are_compared_by_digest(sandbox: Sandbox) -> None:
    one, same, other = (
        value_of(sandbox, "", text)
        for text in ("list(range(10**5))", "[float(i) for i in range(10**5)]", "[0] * 10**5")
    )
    assert one == same
    assert one != other


def test_a_message_can_always_be_written_to_a_file(sandbox: Sandbox) -> None:
    outcome = run(sandbox, "def f(): raise ValueError('\\ud800')")
    assert outcome.detail.encode("utf-8") == b"ValueError: ?"
    assert run(sandbox, "def f(): raise ValueError('a\\nb\\x1b[2Jc')").detail == "ValueError: a b?[2Jc"
