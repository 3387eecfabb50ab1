r"""Gold answers in words without \text{}, and products of letters that look like them: see `number_rules`."""

from tests.evaluation.graders.number_rules import Rows


def plain_words() -> Rows:
    for words, others in (
        ("no solution", ("one solution", "no solutions exist", "0")), ("no real roots", ("two real roots", "roots")),
        ("no triangle", ("triangle", "no rectangle")), ("at noon", ("noon at", "at night")),
        ("by induction", ("by deduction",)), ("it is impossible", ("it is possible",)),
        ("Mr. Jones", ("Mr. Smith", "Mrs. Jones", "Jones")), ("Dr Chen", ("Dr Cheng", "Chen")),
        ("x axis", ("y axis", "axis")), ("x-axis", ("y-axis", "axis")), ("nth term", ("mth term", "term")),
        ("Lynn", ("Flynn", "Lyn")), ("try", ("cry", "yrt x")), ("odd", ("even", "add")),
        ("n is even", ("n is odd", "m is even")), ("no real or complex roots", ("no real or complex poles",)),
    ):  # fmt: skip
        right = [words.upper(), words[0].upper() + words[1:], rf"\textbf{{{words}}}", rf"\mathrm{{{words.upper()}}}"]
        right += [rf"\text{{{words}}}", rf"\text{{{words[0].upper()}{words[1:]}.}}", rf"\mbox{{ {words} }}"]
        yield words, right, [*others, *(rf"\text{{{other}}}" for other in others)]
        yield rf"\text{{{words}}}", [words, words.upper()], [*others, *(rf"\text{{{other}}}" for other in others)]
    for noun, other in (("circle", "square"), ("rhombus", "rectangle"), ("ellipse", "parabola")):
        article = "an" if noun[0] == "e" else "a"
        right = [rf"\text{{{word}}}" for word in (noun, f"{article} {noun}", f"The {noun}", noun.upper())]
        yield f"{article} {noun}", [noun, *right], [other, rf"\text{{a {other}}}", rf"\text{{not {article} {noun}}}"]
        yield noun, right, [other, rf"\text{{{other}}}"]
    yield "Al and Bo", [r"\text{Al and Bo}", "Bo, Al"], [r"\text{Al and Ed}", r"\text{Al}"]
    yield "无解", [r"\text{无解}"], [r"\text{有解}"]


def products_of_letters() -> Rows:
    yield from (
        ("ab", ["ba", "b a", r"a \cdot b", r"\text{ab}"], ["AB", r"\text{AB}", "ac", r"\text{ba c}"]),
        ("x y", ["yx", r"y \cdot x", "xy"], ["X Y", "x", "x + y"]),
        ("xyz", ["zyx", "x z y"], ["XYZ", r"\text{XYZ}", "xy"]),
        ("bcy", ["ycb", "b c y"], ["bcd", "by"]),
        ("a - bc", ["-cb + a", "a-c b"], ["bc - a", "a + bc", r"\text{a}"]),
        ("a b c", ["c b a", "abc"], ["a b", "A B C"]),
        ("x", [r"\text{x}", r"\mathrm{x}"], ["X", r"\text{X}", r"\text{y}"]),
        ("ABD", [r"\mathrm{ABD}", r"\text{ABD}", "ABD"], ["abd", r"\text{abd}", r"\text{ABC}"]),
        ("a, b", ["b, a", r"\text{a}, \text{b}"], [r"\text{ab}", "ab"]),
    )
