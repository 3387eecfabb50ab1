r"""Gold answers with right and wrong answers to them, made by rules that know nothing of the grader.

Each kind yields (gold, right answers, wrong answers). Wrong ones are those that models give: the neighbouring number,
the order swapped, a sign lost, a part left out, another unit, another variable.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import permutations

Rows = Iterator[tuple[str, list[str], list[str]]]

WHOLE = (0, 1, 2, 7, 12, 40, 73, 100, 204, 999, -1, -8, -15)
RATIOS = tuple(Fraction(*pair) for pair in ((1, 2), (3, 4), (2, 5), (7, 8), (9, 4), (11, 20), (-1, 2), (-7, 5), (1, 8)))
PERIODIC = (
    (1, 3, "", "3"),
    (2, 3, "", "6"),
    (1, 7, "", "142857"),
    (1, 6, "1", "6"),
    (5, 11, "", "45"),
    (7, 12, "58", "3"),
)
EMPHASIS = [
    "{}", r"\boldsymbol{{{}}}", r"\bm{{{}}}", r"\pmb{{{}}}", r"\mathbf{{{}}}", r"\underline{{{}}}", r"\mathtt{{{}}}",
    r"\textcolor{{blue}}{{{}}}", r"\color{{red}}{{{}}}", r"\color{{red}} {}", r"{{\color{{red}}{}}}", r"{{\large {}}}",
    r"\Large{{{}}}", r"\displaystyle {}", r"{{\bf {}}}", r"\mathsf{{{}}}", r"\mathit{{{}}}", r"\fbox{{{}}}", "${}$",
    r"\textcolor[rgb]{{1,0,0}}{{{}}}", r"\colorbox{{yellow}}{{{}}}", r"\[{}\]", r"\({}\)", "$${}$$", r"\,{}\,", "{}.",
    r"\boldsymbol{{\underline{{{}}}}}", "{}。", r"\left.{}\right.", r"{{{}}}", "  {} ", r"\quad {}",
    r"\normalsize{{{}}}", r"\mathbf{{\color{{blue}}{{{}}}}}", r"\ensuremath{{{}}}",
    r"\hspace{{1mm}}{}",
    r"\scriptstyle{{{}}}", "{}，",
]  # fmt: skip
"""What an answer may be wrapped in without becoming another."""


def fraction(number: Fraction, command: str = "frac") -> str:
    sign = "-" if number < 0 else ""
    return rf"{sign}\{command}{{{abs(number.numerator)}}}{{{number.denominator}}}"


def integers() -> Rows:
    for n in WHOLE:
        right = [
            f"{n}.0",
            f"x={n}",
            f"{n:04d}" if n > 0 else f"{n}.00",
            rf"\frac{{{2 * n}}}{{2}}",
            f"{n - 1}+1",
            rf"{n}\,",
        ]
        yield (
            str(n),
            right,
            [str(n + 1), str(n * 10 + 1), f"{n}.5", f"{n}x" if n else "x", f"{n}, {n + 1}", str(-n) if n else "1"],
        )
    for n in (1234, 45600, 1234567):
        grouped = f"{n:,}"
        right = [
            grouped,
            *(grouped.replace(",", mark) for mark in ("{,}", r",\!", r"\,", " ", "\u00a0", "\u2009", "\u202f")),
        ]
        yield str(n), right, [grouped[:-4], grouped.replace(",", "."), f"{n + 1:,}", grouped.replace(",", ", ")]


def decimals() -> Rows:
    for text in ("0.5", "1.25", "3.14", "-2.4", "0.001", "12.75"):
        exact = Fraction(text)
        right = [f"{text}0", fraction(exact), f"{exact.numerator}/{exact.denominator}", text.replace("0.", ".", 1)]
        yield (
            text,
            right,
            [str(float(exact * 10)), text + "1", text.replace(".", ""), fraction(1 / exact), str(-float(exact))],
        )


def repeating() -> Rows:
    for over, under, before, block in PERIODIC:
        gold = fraction(Fraction(over, under))
        start = f"0.{before}"
        right = [
            rf"{start}\overline{{{block}}}",
            rf"{start}\bar{{{block}}}",
            f"{start}({block})",
            rf"{start}{block}\overline{{{block}}}",
        ]
        right += (
            [rf"{start}\dot{{{block}}}", f"{start}{block * 3}..."]
            if len(block) == 1
            else [rf"{start}\dot{{{block[0]}}}{block[1:-1]}\dot{{{block[-1]}}}"]
        )
        wrong = [
            (start + block)[:7],
            start.rstrip("."),
            "0",
            rf"{start}\overline{{{block}1}}",
            rf"1.{before}\overline{{{block}}}",
        ]
        yield gold, right, wrong
        yield (
            rf"{start}\overline{{{block}}}",
            [gold, f"{over}/{under}"],
            ["0", (start + block)[:7], fraction(Fraction(over + 1, under))],
        )


def fractions() -> Rows:
    for n in RATIOS:
        a, b, sign = abs(n.numerator), n.denominator, "-" if n < 0 else ""
        right = [fraction(n, name) for name in ("dfrac", "tfrac", "cfrac", "nicefrac", "sfrac")]
        right += [
            f"{n.numerator}/{b}",
            rf"\frac{{{sign}{3 * a}}}{{{3 * b}}}",
            str(float(n)),
            rf"{{{n.numerator} \over {b}}}",
            f"x = {fraction(n)}",
        ]
        right += [rf"{sign}\frac{a}{b}", rf"{sign}\nicefrac{a}{b}"] if max(a, b) < 10 else []
        wrong = [
            fraction(1 / n),
            fraction(-n),
            fraction(n + 1),
            rf"{sign}\frac{{{a}}}{{{b + 1}}}",
            f"{a}",
            f"{a}, {b}",
            f"{a}{b}",
        ]
        yield fraction(n), right, wrong


def mixed() -> Rows:
    for whole, n in ((1, Fraction(1, 2)), (3, Fraction(3, 4)), (12, Fraction(2, 5)), (6, Fraction(1, 6))):
        a, b = n.numerator, n.denominator
        right = [f"{whole} {a}/{b}", rf"{whole}\,\dfrac{{{a}}}{{{b}}}", fraction(whole + n), f"{whole} + {fraction(n)}"]
        wrong = [
            fraction(n),
            str(whole),
            f"{whole}{a}/{b}",
            rf"{whole} \cdot {fraction(n)}",
            f"{whole + 1}{fraction(n)}",
        ]
        yield f"{whole}{fraction(n)}", right, wrong


def ratios() -> Rows:
    for a, b in ((2, 3), (1, 4), (5, 6), (3, 1)):
        right = [f"{a} : {b}", f"{2 * a}:{2 * b}", rf"{a}\colon {b}", rf"\frac{{{a}}}{{{b}}}", f"{a}∶{b}"]
        yield (
            f"{a}:{b}",
            right,
            [
                f"{b}:{a}",
                f"{a}:{b + 1}",
                f"{a}" if b > 1 else "4",
                f"{a},{b}",
                f"{a}:{b}:1",
                f"{a}{b}",
                fraction(Fraction(b, a) + 1),
            ],
        )
    yield (
        "1:2:3",
        ["2:4:6", "1 : 2 : 3"],
        [":".join(order) for order in permutations("123") if order != ("1", "2", "3")],
    )
    for gold, right, wrong in (("1:0", "01 : 0", "5:0"), ("0:1", "0 : 1", "0:2"), ("3:0", r"3\colon 0", "0:3")):
        yield gold, [right], [wrong, "0:0", f"{gold}:0", "1:1"]
    yield "1:0:2", ["2:0:4"], ["2:0:5", "2:1:4", "1:2:0"]
    yield "0:0", ["0 : 0"], ["0:5", "1:0"]


def residues() -> Rows:
    for n, modulus in ((3, 7), (1, 4), (5, 11)):
        right = [
            rf"{n} \pmod{{{modulus}}}",
            rf"x \equiv {n + modulus} \pmod {modulus}",
            rf"x≡{n} (\bmod {modulus})",
            rf"x\equiv {n}\ (\text{{mod }} {modulus})",
        ]
        wrong = [
            rf"x\equiv {n + 1} \pmod {modulus}",
            rf"x\equiv {n} \pmod {modulus + 1}",
            rf"x\equiv {modulus} \pmod {n}",
        ]
        yield rf"x\equiv {n} \pmod {modulus}", right, wrong
        yield (
            str(n + 1),
            [rf"{n + 1} \pmod {modulus}"],
            [rf"x\equiv {n} \pmod {modulus}", rf"{n + 1 + modulus}\pmod {modulus}"],
        )


def wrapped(rows: Rows, every: Callable[[int], str]) -> Rows:
    """The same with each answer once more, in what does not change it."""
    place = 0
    for gold, right, wrong in rows:
        both = []
        for answers in (right, wrong):
            more = []
            for answer in answers:
                place += 1
                more.append(every(place).format(answer))
            both.append([*answers, *more])
        yield gold, both[0], both[1]
