r"""Gold answers that are more than one number, with right and wrong answers to them, made by rules that know nothing of
the grader: see `number_rules`."""

from itertools import combinations, permutations

from tests.evaluation.graders.number_rules import Rows

SIZES = ("", r"\left", r"\big", r"\Big", r"\bigg")
PAIRS = (("1", "2"), ("-3", "7"), ("0", r"\frac{1}{2}"), (r"-\sqrt{2}", r"\sqrt{2}"))
DOTS = (r"\ldots", r"\dots", r"\cdots", "...", "…", r"\dotsc")


def sized(opening: str, inner: str, closing: str) -> list[str]:
    """Brackets in every size."""
    left = [f"{size}l" if "big" in size.lower() else size for size in SIZES]
    right = [(f"{size}r" if "big" in size.lower() else size).replace("left", "right") for size in SIZES]
    return [f"{one}{opening}{inner}{other}{closing}" for one, other in zip(left, right, strict=True)]


def intervals() -> Rows:
    for low, high in PAIRS:
        for opening, closing in ("()", "[]", "(]", "[)"):
            below, above = (r"\le" if bracket in "[]" else "<" for bracket in (opening, closing))
            right = sized(opening, f"{low}, {high}", closing)[1:]
            right += [rf"{low} {below} x {above} {high}", rf"x \in {opening}{low},{high}{closing}"]
            right += [rf"\{{x \mid {low} {below} x {above} {high}\}}", rf"\{{x : {low} {below} x {above} {high}\}}"]
            flipped = {"<": ">", r"\le": r"\geq"}
            right += [
                rf"{high} {flipped[above]} x {flipped[below]} {low}",
                rf"{low} {below} x \text{{ and }} x {above} {high}",
            ]
            right += [f"{opening}{low};{high}{closing}"]
            if (opening, closing) != ("(", ")"):
                backwards = {"(": "]", "[": "[", ")": "[", "]": "]"}
                right.append(f"{backwards[opening]}{low},{high}{backwards[closing]}")
            others = [pair for pair in ("()", "[]", "(]", "[)") if pair != opening + closing]
            wrong = [f"{one}{low},{high}{other}" for one, other in others]
            wrong += [f"{opening}{high},{low}{closing}", f"{opening}{low},{high}9{closing}", f"x {above} {high}", low]
            wrong += [rf"{opening}{low},\infty)", rf"\{{{low},{high}\}}", rf"x {above} {low}"]
            yield f"{opening}{low},{high}{closing}", right, wrong


def rays() -> Rows:
    for bound in ("3", "-1", r"\frac{5}{2}"):
        for sign, other, interval in (
            (">", "<", rf"({bound},\infty)"), (r"\ge", r"\le", rf"[{bound},\infty)"),
            ("<", ">", rf"(-\infty,{bound})"), (r"\le", r"\ge", rf"(-\infty,{bound}]"),
        ):  # fmt: skip
            right = [f"x {sign} {bound}", f"{bound} {other} x", interval, interval.replace(r",\infty", r", +\infty")]
            spelt = {r"\ge": [r"\geq", r"\geqslant", "≥", ">="], r"\le": [r"\leq", r"\leqslant", "≤", "<="]}
            right += [f"x {sign_again} {bound}" for sign_again in spelt.get(sign, [])]
            strict = {">": r"\ge", "<": r"\le", r"\ge": ">", r"\le": "<"}[sign]
            wrong = [
                f"x {other} {bound}",
                f"x {strict} {bound}",
                f"x {sign} -{bound}".replace("--", ""),
                bound,
                f"x = {bound}",
            ]
            yield f"x {sign} {bound}", right, [*wrong, f"y {sign} {bound}"]
            yield interval, right, [*wrong, interval.replace(bound, bound + "1" if bound[-1].isdigit() else "7")]


def joined() -> Rows:
    for low, high in (("-1", "2"), (r"\frac12", "3"), ("-4", "-2")):
        gold = rf"(-\infty,{low})\cup({high},\infty)"
        right = [
            rf"x<{low} {word} x>{high}"
            for word in (r"\text{ or }", r"\lor", r"\vee", "or", r"\text{or}", r"\;\text{ or }\;")
        ]
        right += [rf"x>{high} \text{{ or }} x<{low}", rf"({high},\infty)\cup(-\infty,{low})", rf"x \in {gold}"]
        right += [rf"\{{x \mid x<{low} \text{{ or }} x>{high}\}}", gold.replace(r"\cup", "∪"), rf"x<{low}, x>{high}"]
        wrong = [
            rf"x<{low} \text{{ or }} x>{high}1",
            rf"x\le {low} \text{{ or }} x>{high}",
            rf"x<{low} \text{{ and }} x>{high}",
        ]
        wrong += [
            rf"x<{low}",
            rf"x>{high}",
            rf"({low},{high})",
            rf"x>{low} \text{{ or }} x<{high}",
            rf"(-\infty,{low}]\cup({high},\infty)",
        ]
        wrong += [gold.replace(r"\cup", ","), gold.replace(r"\cup", r"\cap"), rf"x<{low} \text{{ or }} y>{high}"]
        yield gold, right, wrong[:-3] + wrong[-2:]
        yield rf"x<{low} \text{{ or }} x>{high}", [gold, *right[1:]], wrong[:-3] + wrong[-2:]
    for hole in ("2", r"\frac{1}{3}"):
        gold = rf"(-\infty,{hole})\cup({hole},\infty)"
        right = [
            rf"x \ne {hole}",
            rf"x\neq {hole}",
            rf"\mathbb{{R}}\setminus\{{{hole}\}}",
            rf"x ≠ {hole}",
            rf"\mathbb{{R}} \backslash \{{{hole}\}}",
        ]
        yield (
            gold,
            right,
            [rf"x = {hole}", r"\mathbb{R}", hole, rf"x \ne -{hole}", rf"(-\infty,{hole}]\cup({hole},\infty)"],
        )


def tuples() -> Rows:
    for items in (("1", "2"), ("-3", r"\frac{1}{2}", "0"), (r"3", r"\frac{\pi}{2}"), ("1", "2", "3", "4")):
        inner = ", ".join(items)
        right = [
            *sized("(", inner, ")")[1:],
            inner.join((r"\langle ", r"\rangle ")),
            f"（{inner}）",
            f"({'，'.join(items)})",
        ]
        right += [rf"(x,y) = ({inner})", f"P = ({inner})"] if len(items) == 2 else []
        wrong = [f"({', '.join(order)})" for order in permutations(items) if order != items][:5]
        wrong += [
            f"({', '.join(items[:-1])}, 9)",
            rf"\{{{inner}\}}",
            f"({inner}, 0)",
            items[0],
            f"(-{inner})".replace("--", ""),
        ]
        yield f"({inner})", right, wrong
    gold = "(1,2),(2,5)"
    right = [
        "(2,5),(1,2)",
        r"(1,2) \text{ and } (2,5)",
        r"(x,y)=(1,2) \text{ or } (2,5)",
        r"\{(1,2),(2,5)\}",
        "(1,2); (2,5)",
    ]
    yield (
        gold,
        right,
        ["(2,1),(5,2)", "(1,2)", "(1,2),(2,6)", r"\{1,2\},\{2,5\}", "(1,2),(2,5),(3,3)", "1,2,2,5", "(1,5),(2,2)"],
    )


def sets_and_lists() -> Rows:
    for items in (("1", "3", "5"), ("-2", r"\sqrt{2}", "7"), (r"\frac{1}{2}", "4"), ("0", "1", "i", "-i")):
        inner = ", ".join(items)
        back = ", ".join(reversed(items))
        right = [
            back,
            *sized(r"\{", inner, r"\}"),
            rf"\{{{back}\}}",
            rf"{', '.join(items[:-1])} \text{{ and }} {items[-1]}",
            "、".join(items),
        ]
        right += [
            " or ".join(items),
            ";".join(items),
            rf"{', '.join(items[:-1])}, \text{{ or }} {items[-1]}",
            f"x = {inner}",
        ]
        right += [", ".join(f"x={item}" for item in items), r"\text{ or } ".join(f"x = {item}" for item in items)]
        wrong = [", ".join(part) for part in combinations(items, len(items) - 1)]
        wrong += [
            f"{inner}, 11",
            f"{', '.join(items[:-1])}, 9",
            items[0],
            "(" + ", ".join(items[:-1]) + ")",
            rf"{inner}, \ldots",
        ]
        yield inner, right, wrong
        yield rf"\{{{inner}\}}", right, [*wrong, f"({inner})"]


def dots() -> Rows:
    for gold, others in (
        (
            r"1, 2, {}, n",
            (r"1, 3, {}, n", r"1, 2, {}, 2n", "1, 2, n", r"1, 2, {}", "2", r"2, {}, n", r"1, 2, 3, {}, m"),
        ),
        (r"\{{2, 4, {}, 2n\}}", (r"\{{2, 6, {}, 2n\}}", r"\{{2, 4, 2n\}}", r"\{{2, 4\}}", r"\{{2, 4, {}\}}", "2n")),
        (r"1, 2, 4, {}, 2^k", (r"1, 2, 4, {}, 2^n", r"1, 2, 3, {}, 2^k", r"1, 2, 4", "1", r"2^k, 4, 2, {}, 1")),
    ):
        for place, sign in enumerate(DOTS):
            yield gold.format(DOTS[place - 1]), [gold.format(sign)], [other.format(sign) for other in others]
    yield "5", ["5"], [rf"1, 5, {sign}, n" for sign in DOTS] + [rf"5, {sign}" for sign in DOTS]


def matrices() -> Rows:
    for rows in ((("1", "2"), ("3", "4")), (("-1/3",), ("2/3",)), (("0", r"\sqrt{2}"), ("x", "-1"))):

        def body(cells: tuple[tuple[str, ...], ...]) -> str:
            return r" \\ ".join(" & ".join(row) for row in cells)

        kinds = ("pmatrix", "bmatrix", "pmatrix*", "psmallmatrix")
        right = [rf"\begin{{{kind}}} {body(rows)} \end{{{kind}}}" for kind in kinds]
        right += [
            rf"\left(\begin{{array}}{{cc}} {body(rows)} \end{{array}}\right)",
            rf"A = {right[0]}",
            right[0].replace(r"\\", r"\\[2pt]"),
        ]
        turned = tuple(zip(*rows, strict=True))
        changed = (*rows[:-1], (*rows[-1][:-1], "9"))
        wrong = [
            rf"\begin{{pmatrix}} {body(cells)} \end{{pmatrix}}" for cells in (turned, changed, rows[::-1], rows[:1])
        ]
        yield right[0], right[1:], [*wrong, rows[0][0], rf"2{right[0]}"]


def cases() -> Rows:
    def lines(*pairs: tuple[str, str], word: str = "", end: str = "") -> str:
        return (
            r"\begin{cases} " + r" \\ ".join(f"{value} & {word}{when}{end}" for value, when in pairs) + r" \end{cases}"
        )

    first, second = ("x+1", "x > 0"), ("x^2", r"x \le 0")
    right = [
        lines(second, first),
        lines(first, second, word=r"\text{if } "),
        lines(first, second, word=r"\text{for }", end=","),
    ]
    right += [lines(("1+x", "x > 0"), second), rf"f(x) = {lines(first, second)}"]
    wrong = [
        lines(first, (second[0], r"x \le 1")),
        lines(first, ("x^3", second[1])),
        lines(first),
        "x+1",
        lines((first[0], second[1]), (second[0], first[1])),
    ]
    yield lines(first, second), right, [*wrong, lines(first, second, ("0", "x = 7"))]
    system = r"\begin{cases} x = 1 \\ y = 2 \end{cases}"
    right = ["x=1, y=2", "y=2, x=1", r"x=1 \text{ and } y=2", r"\begin{cases} y=2 \\ x=1 \end{cases}", "(1,2)"]
    yield system, right, ["x=2, y=1", "(2,1)", "x=1", r"\begin{cases} x = 1 \\ y = 3 \end{cases}", "x=1, z=2", "1"]


def expressions() -> Rows:
    same = {
        "x^2+1": ["1+x^2", "x^{2} + 1", r"x \cdot x + 1", "f(x) = x^2 + 1", "(x^2+1)", r"\frac{2x^2+2}{2}"],
        "2n-2": ["2(n-1)", "-2+2n", r"2\left(n-1\right)", r"2\bigl(n-1\bigr)", "n+n-2"],
        "(x+1)(x-2)": ["x^2-x-2", "(x-2)(x+1)", r"\Big(x+1\Big)\Big(x-2\Big)"],
        r"\frac{n(n+1)}{2}": [r"\frac{n^2+n}{2}", "n(n+1)/2", r"\tfrac{1}{2}n(n+1)", r"\frac12 n(n+1)"],
        r"\frac{1}{1+s}": [r"\frac{1}{s+1}", "(1+s)^{-1}", r"1/(1+s)"],
        "3R^2": [r"3 R^{2}", r"3\cdot R^2", "R^2+2R^2"],
        "2ab+a": ["a(2b+1)", "a+2ab", "2ba+a"],
        r"2^{n}": ["2^n", r"2 \cdot 2^{n-1}", r"\frac{2^{n+1}}{2}"],
        r"x^3-6x^2+11x-6": ["(x-1)(x-2)(x-3)", "-6+11x-6x^2+x^3"],
        r"\sin^2 t": [r"1-\cos^2 t", r"(\sin t)^2", r"\sin^2(t)"],
    }
    other = {
        "x^2+1": ["x^2-1", "x^2", "1", "y^2+1", "(x+1)^2", "x^2+2", "2x+1", "x^2, 1", "x^2=1"],
        "2n-2": ["2n", "2n+2", "2m-2", "2", "n-2", "2n-3", r"2n\text{ or }2"],
        "(x+1)(x-2)": ["(x+1)(x+2)", "(x-1)(x+2)", "x+1", "(x+1),(x-2)", "(x+1)(x-2)+1"],
        r"\frac{n(n+1)}{2}": [
            r"\frac{n(n-1)}{2}",
            r"\frac{n+1}{2}",
            "n(n+1)",
            r"\frac{m(m+1)}{2}",
            r"\frac{n(n+1)}{3}",
        ],
        r"\frac{1}{1+s}": [r"\frac{1}{1-s}", "1+s", r"\frac{1}{s}", "1", r"\frac{1}{1+t}"],
        "3R^2": ["3r^2", "R^2", "3R", "9R^2", "3", "3R^3", "-3R^2"],
        "2ab+a": ["2ab", "2ab+b", "2a+ab", "3ab", "2ac+a"],
        r"2^{n}": ["2n", "n^2", "2^{n+1}", "2", "2^{m}"],
        r"x^3-6x^2+11x-6": ["x^3-6x^2+11x+6", "x^3+6x^2+11x-6", "(x-1)(x-2)", "x^3-6x^2+11x-7"],
        r"\sin^2 t": [r"\cos^2 t", r"\sin t", r"\sin^2 x", r"1+\cos^2 t", r"\sin t^2"],
    }
    for gold, right in same.items():
        yield gold, right, other[gold]


def radicals_and_powers() -> Rows:
    for gold, right in (
        (r"2\sqrt{3}", [r"\sqrt{12}", r"2\sqrt3", "2√3", r"\sqrt{3}\cdot 2", r"\frac{6}{\sqrt3}", "3.4641016"]),
        (r"\frac{\sqrt{3}}{2}", [r"\sqrt{\frac34}", r"\frac{3}{2\sqrt3}", r"\dfrac{1}{2}\sqrt{3}"]),
        (r"\sqrt{2}+\sqrt{3}", [r"\sqrt{5+2\sqrt6}", r"\sqrt3+\sqrt2", r"\frac{1}{\sqrt3-\sqrt2}"]),
        (r"\sqrt[3]{4}", [r"2^{2/3}", r"4^{\frac13}", r"\frac{2}{\sqrt[3]{2}}"]),
        ("2^{100}", [r"4^{50}", "2^{99}+2^{99}", "1267650600228229401496703205376"]),
        (r"1-2^{-99}", [r"1-\frac{1}{2^{99}}", r"\frac{2^{99}-1}{2^{99}}"]),
        (r"\log_2 3", [r"\frac{\ln 3}{\ln 2}", r"\log_{2}{3}", r"\log_4 9"]),
        (r"\ln 2", [r"\ln{2}", r"-\ln\frac12", r"\frac{\ln 4}{2}"]),
        (r"3\pi", [r"\pi \cdot 3", "3π", r"\frac{6\pi}{2}"]),
        (r"\binom{7}{2}", ["21", r"{7 \choose 2}", r"\dbinom72", r"\frac{7!}{2!5!}"]),
        ("1+2i", ["2i+1", r"1+2\mathrm{i}", r"\frac{2+4i}{2}", "z = 1+2i"]),
    ):  # fmt: skip
        yield gold, right, [f"{gold}+10^{{-20}}", f"-({gold})", f"2({gold})", f"{gold}, 2", f"({gold})^2", "1"]
    powers = ["1-2^{-100}", r"1-\frac{1}{2^{98}}", "1", r"1-2^{99}", r"1-3^{-99}", r"1+2^{-99}", "0.99999"]
    yield "1-2^{-99}", ["1-4^{-49.5}"], powers
    yield (
        r"1 \pm \sqrt{19}",
        [r"1+\sqrt{19}, 1-\sqrt{19}", r"x = 1\pm\sqrt{19}", r"1±√19"],
        [r"1+\sqrt{19}", r"1 \pm \sqrt{17}", r"-1 \pm \sqrt{19}"],
    )
    yield r"\frac{1}{2004!}", [r"\frac{1}{2004 \cdot 2003!}"], [r"\frac{1}{2005!}", "0", r"\frac{1}{2003!}"]


def equations() -> Rows:
    right = ["y-2x=3", "2x-y+3=0", "y = 3+2x", "2x+3", "2y=4x+6", "2x+3=y"]
    yield "y=2x+3", right, ["y=2x-3", "y=3x+2", "y=2x", "2x+y+3=0", "y=2z+3", "y=2t+3", "3", "y=2x+3, y=0"]
    yield (
        "x^2+y^2=1",
        ["x^2+y^2-1=0", "1=x^2+y^2", "2x^2+2y^2=2"],
        ["x^2-y^2=1", "x^2+y^2=2", "1", "x+y=1", "x^2+z^2=1"],
    )
    yield "x=5", ["5", "5=x", "x = 5.0", r"x=\frac{10}{2}"], ["x=6", "y=5", "x=-5", "6", "x=5,y=5", r"x \ne 5", "x>5"]
    yield "73", ["m+n=73", "x=70+3=73", "n = 73"], ["m+n=74", "73=74", "73+n", "m+n>73", "x=73, y=2"]
    yield (
        r"s^2 \le 8r^2",
        [r"8r^2 \ge s^2", r"s^2 - 8r^2 \leq 0"],
        [r"s^2 \ge 8r^2", r"s^2 < 8r^2", r"s \le 8r", r"s^2 \le 8t^2", "8"],
    )


def words() -> Rows:
    for word, others in (
        ("even", ("odd", "neve", "even or odd", "2")), ("Tuesday", ("Thursday", "Monday")), ("CBAD", ("ABCD", "CBA")),
        ("June 20", ("June 2", "July 20", "20", "June 21")), ("two lines", ("two planes", "lines", "line two", "2")),
        ("Evelyn", ("Evan", "Carla", "E")), ("No", ("Yes", "1")),
        ("ellipse", ("parabola", "circle", "an ellipse or a circle")),
    ):  # fmt: skip
        right = [
            word,
            rf"\textbf{{{word}}}",
            rf"\mathrm{{{word}}}",
            rf"\text{{{word.upper()}}}",
            rf"\text{{ {word}.}}",
            rf"\mbox{{{word}}}",
        ]
        yield rf"\text{{{word}}}", right, [*others, *(rf"\text{{{other}}}" for other in others)]
    yield r"\text{(C)}", ["C", "(C)", r"\textbf{(C)}", r"\mathrm{C}"], ["(B)", "D", r"\text{(CD)}", "3"]


def bases() -> Rows:
    for digits, base in (("2516", 8), ("101", 2), ("43", 5)):
        right = [f"{digits}_{{{base}}}", digits, rf"{digits}_{{\text{{{base}}}}}", f"({digits})_{base}"]
        wrong = [
            f"{digits}_{base + 1}",
            f"{digits}1_{base}",
            f"{digits}_{{10}}",
            str(int(digits, base)),
            f"{digits}{base}",
        ]
        yield f"{digits}_{base}", right, wrong
