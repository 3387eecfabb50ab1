r"""Gold answers with a unit or a notation of their own, with right and wrong answers to them, made by rules that know
nothing of the grader: see `number_rules`."""

from fractions import Fraction
from itertools import pairwise

from tests.evaluation.graders.number_rules import Rows, fraction

LETTERS = "mstghdclkL"
"""Variables that are letters of units, too."""


def percents() -> Rows:
    for n in (5, 20, 62.5, 130):
        right = [f"{n}%", f"{n}", rf"{n} \%", rf"{n}\text{{ percent}}", f"{n} percent", str(n / 100), f"{n}％"]
        wrong = [
            rf"{n + 1}\%",
            rf"{n * 10:g}\%",
            str(n / 1000),
            rf"{n}^\circ",
            rf"-{n}\%",
            rf"{n}\text{{ cm}}",
            rf"{n / 100}\%",
        ]
        yield rf"{n}\%", right, wrong


def money() -> Rows:
    for text in ("18", "3.50", "1250", "0.75", "1,250"):
        right = [
            rf"\${text}",
            text,
            rf"{text}\text{{ dollars}}",
            f"{text} dollars",
            f"USD {text}",
            rf"\text{{\${text}}}",
        ]
        wrong = [
            rf"\${text}1",
            rf"{text}\text{{ cents}}",
            f"€{text}",
            rf"\$1{text}",
            rf"-\${text}",
            rf"{text}\text{{ hours}}",
        ]
        yield rf"\${text}", right, wrong


def units() -> Rows:
    names = {
        "cm": "centimeters",
        "kg": "kilograms",
        "hours": "h",
        "miles": "mi",
        "mph": "miles per hour",
        "m": "meters",
        "s": "seconds",
    }
    for (unit, long), (other, _) in pairwise([*names.items(), ("feet", "ft")]):
        right = [
            rf"7\text{{ {long}}}",
            "7",
            rf"7\,\mathrm{{{unit}}}",
            rf"\text{{7 {unit}}}",
            rf"7\mbox{{ {unit}}}",
            rf"x=7\text{{ {unit}}}",
        ]
        wrong = [
            rf"8\text{{ {unit}}}",
            rf"7\text{{ {other}}}",
            "70",
            rf"7\text{{ {unit} or more}}",
            rf"7\text{{ {unit}}}^3",
        ]
        yield rf"7\text{{ {unit}}}", right, wrong
    right = [
        "12 apples",
        "12 cm",
        r"12\text{ m}",
        "12元",
        r"12\text{元}",
        r"\text{12个}",
        "12 厘米",
        r"12 \text{ см}",
        "12人",
        "12公斤",
    ]
    right += [
        r"12 \text{ Stück}",
        "12°C",
        "12℃",
        r"12^\circ\text{C}",
        "12 km/h",
        r"12\text{ m}^2",
        "12 千米",
        "12个。",
        "12th",
    ]
    yield (
        "12",
        right,
        ["12m", "12 x", "12h", "12 s", "12万", "12 dozen", "13元", "12 or 13", "12 000元", "12月3日", "12 and a half"],
    )
    yield (
        r"12\sqrt{13}\text{ feet}",
        [r"12\sqrt{13}", r"12\sqrt{13}\text{ ft}"],
        ["12", r"12\sqrt{13}\text{ m}", r"\sqrt{13}"],
    )


def letters_of_units() -> Rows:
    for letter, other in pairwise(LETTERS + "x"):
        right = [f"{letter}6", rf"6 \cdot {letter}", f"6 {letter}", f"6{{{letter}}}", f"2(3{letter})"]
        yield (
            f"6{letter}",
            right,
            ["6", f"6{other}", f"7{letter}", letter, "6 apples", r"6\text{ kg}", f"6{letter}^2", f"-6{letter}"],
        )
        yield (
            rf"\frac{{3}}{{4}}{letter}",
            [f"0.75{letter}", rf"\frac{{3{letter}}}{{4}}"],
            [r"\frac34", f"x={other}", "0.75"],
        )


def degrees() -> Rows:
    for n in (30, 45, 117, 7.5):
        right = [rf"{n}^{{\circ}}", f"{n}°", str(n), rf"{n}\text{{ degrees}}", rf"{n}\degree", rf"\angle A = {n}^\circ"]
        wrong = [
            rf"{n + 1}^\circ",
            rf"{n}\%",
            rf"{n}\text{{ cm}}",
            rf"{n}\pi",
            rf"\frac{{{n}}}{{180}}",
            rf"{n}\text{{ rad}}",
        ]
        yield rf"{n}^\circ", right, wrong


def trigonometry() -> Rows:
    values = {r"\sin 30^\circ": r"\frac12", r"\cos 30^\circ": r"\frac{\sqrt3}{2}", r"\tan 60^\circ": r"\sqrt{3}"}
    values |= {
        r"\tan 15^\circ": r"2-\sqrt3",
        r"\cos 120^\circ": "-0.5",
        r"\sin^2 60^\circ": r"\frac34",
        r"\cos\frac{\pi}{3}": r"\frac12",
    }
    values |= {
        r"\sin(45^\circ)": r"\frac{\sqrt{2}}{2}",
        r"\cot 45^\circ": "1",
        r"\sin 30^\circ \cos 60^\circ": r"\frac14",
    }
    for function, number in values.items():
        radians = function.replace(r"^\circ", "")
        wrong = [
            f"{number}+1",
            f"-{number}" if number[0] != "-" else number[1:],
            *([radians] if radians != function else []),
        ]
        yield number, [function, function.replace("^\\circ", "^{\\circ}"), function.replace("^\\circ", "°")], wrong
        yield function, [number], wrong
    yield (
        r"\cos 20^\circ",
        [r"\sin 70^\circ", r"\cos\frac{\pi}{9}", r"\cos(20°)"],
        [r"\cos 20", r"\cos 70^\circ", r"20^\circ"],
    )
    yield r"\sin 10", [r"\sin(10)", r"\sin{10}"], [r"\sin 10^\circ", "10", r"\cos 10"]


def times() -> Rows:
    for hour, minute in ((5, 0), (7, 30), (9, 24), (11, 45), (12, 5)):
        shown = f"{hour}:{minute:02d}"
        right = [
            f"{hour:02d}:{minute:02d}",
            rf"{hour}\!:\!{minute:02d}",
            rf"{hour}{{:}}{minute:02d}",
            f"{hour}：{minute:02d}",
        ]
        wrong = [
            f"{hour}:{minute + 1:02d}",
            f"{hour % 12 + 1}:{minute:02d}",
            fraction(Fraction(hour, minute or 1)),
            f"{hour}{minute:02d}",
            str(hour),
        ]
        yield shown, right, [*wrong, "3:8"]
        for half, other in (("a.m.", "p.m."), ("p.m.", "a.m.")):
            said = rf"{shown} \text{{ {half}}}"
            right = [
                f"{shown} {half}",
                rf"{shown}\text{{ {half.replace('.', '').upper()}}}",
                f"{shown}{half.replace('.', '')}",
            ]
            yield (
                said,
                right,
                [
                    rf"{shown}\text{{ {other}}}",
                    f"{shown} {other.replace('.', '')}",
                    rf"{hour}:{minute + 2:02d}\text{{ {half}}}",
                ],
            )


def pounds() -> Rows:
    said = [
        r"5\text{ pounds}",
        "5 pounds",
        r"5\text{ pounds sterling}",
        r"\pounds 5",
        "£5",
        "GBP 5",
        r"5\text{ GBP}",
        "5",
    ]
    others = [r"5\text{ kg}", "5 dollars", "€5", r"\$5", r"5\text{ pence}", "£6", r"5\text{ ounces}"]
    for gold in ("£5", r"\pounds 5"):
        yield gold, [*said, "5"], [*others, r"5\text{ lb}", "5 lbs"]
    yield r"5\text{ lb}", ["5 pounds", "5 lbs", r"5\text{ pound}", "5"], [*others, "£5", "GBP 5"]
    yield r"5\text{ pounds}", [*said, "5 lbs", "5"], others


def dollars_as_in_prose() -> Rows:
    for number in ("18", "3.50", "1,250"):
        right = [f"${number}", rf"\${number}", number, f"{number} dollars", rf"{number}\text{{ dollars}}"]
        wrong = [f"{number} euros", f"€{number}", rf"{number}\text{{ cents}}", f"{number} kg", f"$1{number}"]
        yield f"${number}", right, wrong
    yield "18 euros", ["18", "€18"], ["$18", r"\$18", "18 dollars"]
    yield "$18$", ["18", "18 euros", "$18$", r"\$18"], ["$19$", "18 or 19"]


def units_as_latex_sets_them() -> Rows:
    spelt = [
        r"\mathrm{m\cdot s^{-1}}", r"\mathrm{m\,s^{-1}}", r"\mathrm{m}\cdot\mathrm{s}^{-1}", r"\text{m s}^{-1}",
        r"\mathrm{m/s}", r"\mathrm{m\times s^{-1}}",
    ]  # fmt: skip
    more = [
        r"\mu\text{m}", r"\mathrm{\mu m}", r"\mathrm{k\Omega}", r"\mathrm{\Omega}", r"\mathrm{kg\cdot m/s^2}",
        r"\mathrm{cm^2}", r"\mathrm{cm^{3}}", r"\mathrm{N\cdot m}", r"\mathrm{^\circ C}", r"\mathrm{m\,s^{-2}}",
    ]  # fmt: skip
    wrong = [rf"3\,{unit}" for unit in (*spelt, *more)] + [r"2\mu", r"2\mathrm{e^2}", r"2\,\mathrm{i}", r"2\Omega m"]
    yield "2", [rf"2\,{unit}" for unit in (*spelt, *more)], wrong
    pairs = (r"2\text{ km/h}", r"2\,\mathrm{m\,s^{-2}}", r"2\,\mathrm{cm\,s^{-1}}")
    yield r"2\text{ m/s}", [rf"2\,{unit}" for unit in spelt] + ["2 meters per second"], [*pairs]
    right = [r"2\,\mathrm{\mu m}", "2 µm", "2 μm", r"2\text{ micrometers}", "2"]
    yield r"2\,\mu\text{m}", right, [r"2\text{ mm}", r"2\text{ m}", r"2\mu"]
    yield (
        r"2\,\mathrm{k\Omega}",
        [r"2\text{ kΩ}", "2"],
        [r"2\,\mathrm{\Omega}", r"2\text{ ohms}", r"2\,\mathrm{M\Omega}"],
    )
    yield r"2\,\mathrm{cm^2}", [r"2\text{ cm}^{2}", "2 square centimeters"], [r"2\,\mathrm{cm^3}", r"2\,\mathrm{m^2}"]
    yield r"2\text{ s}", [r"2\,\mathrm{s}"], [r"2\,\mathrm{s^{-1}}"]


def angles_of_inverse_functions() -> Rows:
    for degrees, written in (
        ("45", [r"\arctan 1", r"\tan^{-1} 1", r"\tan^{-1}(1)"]), ("30", [r"\arcsin\frac12", r"\sin^{-1}\frac{1}{2}"]),
        ("60", [r"\arccos(0.5)", r"\cos^{-1}\frac12", r"\arctan\sqrt{3}"]),
    ):  # fmt: skip
        others = [r"\arctan 2", r"\tan 1", r"\arccos 1", r"\tan^{-1} 2", r"\sin^{-1} 1", r"\frac{\pi}{5}"]
        yield rf"{degrees}^\circ", [*written, rf"\theta = {written[0]}"], others
        for gold in written:
            yield gold, [rf"{degrees}^\circ", f"{degrees}°", *written], [rf"{degrees}1^\circ", degrees, *others]
