"""Maths: whether two answers, read as trees, say the same; algebra is asked only about their leaves."""

import itertools
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

from evaluation.graders.answers.nodes import (
    Clock,
    Comparison,
    Dots,
    Equation,
    Group,
    Leaf,
    Node,
    Range,
    Ratio,
    Region,
    Residue,
    Words,
    by_name,
    has_region,
    names,
    without_repetitions,
)
from evaluation.graders.answers.quantity import (
    contradiction,
    contradicts_itself,
    same_numeral,
    split_unit,
    without_base,
)
from evaluation.graders.answers.ranges import as_difference
from evaluation.graders.answers.regions import as_region, normal, relations
from evaluation.graders.answers.structure import as_list, parse, same_spoken, same_words, words
from evaluation.graders.notation import WRAPPED, squeezed, value, whole_number, without_letter_x, without_percent

ROUNDED = 6  # decimals that a number written as a decimal is compared to
RELATIVE = Fraction(1, 10**6)  # numbers further apart than this share of the larger are never equal
Relations = list[tuple[str, str, str]]  # left, sign, right
_INFINITE = {"\\infty", "-\\infty", "+\\infty"}

_RADIANS = re.compile(
    r"\\pi(?![A-Za-z])|\\arc(?:sin|cos|tan|cot)|\\(?:sin|cos|tan|cot)\s*\^\s*(?:\{\s*-\s*1\s*\}|-\s*1)"
)


class Algebra(Protocol):
    """What compares expressions."""

    def equal(self, gold: str, answer: str) -> bool:
        """Whether two expressions are equal."""

    def same_relation(self, gold: tuple[str, str], answer: tuple[str, str]) -> int:
        """1 where the difference of the second pair is a positive multiple of that of the first, -1 where it is a
        negative one, else 0."""


class NeedsAlgebra(Exception):
    """Raised by `NoAlgebra`."""


class NoAlgebra:
    """Stands for algebra where only what is plain without it is to be told."""

    def equal(self, gold: str, answer: str) -> bool:
        """Raises `NeedsAlgebra`."""
        raise NeedsAlgebra

    def same_relation(self, gold: tuple[str, str], answer: tuple[str, str]) -> int:
        """Raises `NeedsAlgebra`."""
        raise NeedsAlgebra


class Equality:
    """Compares cleaned answers. `reason` says of the last comparison why it is false, where it is not plain."""

    def __init__(self, algebra: Algebra) -> None:
        self._algebra = algebra
        self.reason = ""

    def __call__(self, gold: str, answer: str) -> bool:
        """Whether a cleaned answer is the cleaned gold one. Raises what the algebra raises."""
        self.reason = "an equation between different numbers" if contradicts_itself(answer) else ""
        one, other = parse(gold), parse(answer)
        if isinstance(one, Group):
            other = as_list(other)
        if isinstance(one, Words) != isinstance(other, Words) and not self.reason and same_words(gold, answer):
            return True  # the other one was read as a product, or as a list: \\text{Ann and Bob}
        return not self.reason and self._same(one, other)

    def _same(self, gold: Node, answer: Node) -> bool:
        if gold == answer:
            return True
        if isinstance(gold, Equation) or isinstance(answer, Equation):
            return self._same_equations(gold, answer)
        if isinstance(gold, Residue) or isinstance(answer, Residue):
            return self._same_residues(gold, answer)
        if isinstance(gold, Clock) or isinstance(answer, Clock):
            return self._same_times(gold, answer)
        if isinstance(gold, Ratio) or isinstance(answer, Ratio):
            return self._same_ratios(gold, answer)
        if has_region(gold) or has_region(answer):
            regions = as_region(gold), as_region(answer)
            if regions[0] is not None and regions[1] is not None:
                return self._same_regions(normal(regions[0]), normal(regions[1]))
        if isinstance(gold, Comparison) or isinstance(answer, Comparison):
            both = relations(gold, answer), relations(answer, gold)
            if all(both):
                return self._same_comparisons(gold, answer, *both)
        if isinstance(gold, Group) or isinstance(answer, Group):
            return self._same_groups(gold, answer)
        if isinstance(gold, Range) and isinstance(answer, Range):
            pairs = (gold.low, answer.low), (gold.high, answer.high)
            return all(self._same_leaves(f"{one} {gold.unit}", f"{two} {answer.unit}") for one, two in pairs)
        # A range is no number. So 12-15 is not -3, which nobody leaves as it is; 7-2 is 5.
        gold, answer = as_difference(gold), as_difference(answer)
        if isinstance(gold, Leaf) and isinstance(answer, Leaf):
            return same_spoken(gold.text, answer.text) or self._same_leaves(gold.text, answer.text)
        if isinstance(gold, Leaf) and isinstance(answer, Words):
            return same_words(gold.text, answer.written)
        if isinstance(gold, Words) and isinstance(answer, Leaf):
            return gold == words(WRAPPED.sub(r"\1", answer.text))
        return False

    def _same_equations(self, gold: Node, answer: Node) -> bool:
        if not isinstance(gold, Equation):
            assert isinstance(answer, Equation)
            return self._same(gold, answer.right)
        if not isinstance(answer, Equation):
            return gold.name is not None and self._same(gold.right, answer)
        if gold.name is not None and gold.name == answer.name:
            return self._same(gold.right, answer.right)
        sides = [node.text.split("=") for node in (gold, answer)]
        if len(sides[0]) != 2 or len(sides[1]) != 2:
            return "" in (gold.name, answer.name) and self._same(gold.right, answer.right)
        return self._algebra.same_relation((sides[0][0], sides[0][1]), (sides[1][0], sides[1][1])) != 0

    def _same_comparisons(self, gold: Node, answer: Node, relations: Relations, others: Relations) -> bool:
        if isinstance(gold, Comparison) and isinstance(answer, Comparison) and len(gold.signs) > 1:
            pairs = zip(gold.sides, answer.sides, strict=False)
            if gold.signs == answer.signs and all(itertools.starmap(self._same_leaves, pairs)):
                return True
        return self._same_relations(relations, others)

    def _same_relations(self, gold: Relations, answer: Relations) -> bool:
        """Whether each inequality of one is a multiple of one of the other, and they are as many."""
        left = list(answer)
        for low, sign, high in gold:
            for other in left:
                factor = self._algebra.same_relation((low, high), (other[0], other[2])) if sign == other[1] else 0
                if factor > 0 or (factor and sign == "\\ne"):
                    left.remove(other)
                    break
            else:
                return False
        return not left

    def _same_residues(self, gold: Node, answer: Node) -> bool:
        if isinstance(gold, Residue) and isinstance(answer, Residue):
            if gold.modulus != answer.modulus:
                return False
            variables = {node.value.name for node in (gold, answer) if isinstance(node.value, Equation)}
            if len(variables - {"", None}) > 1:
                return False
            left, right = (_whole(node.value) for node in (gold, answer))
            if left is not None and right is not None and gold.modulus.isdigit() and int(gold.modulus):
                return (left - right) % int(gold.modulus) == 0
            return self._same(gold.value, answer.value)
        if isinstance(gold, Residue):
            return not isinstance(gold.value, Equation) and self._same(gold.value, answer)
        assert isinstance(answer, Residue)
        return self._same(gold, answer.value)

    def _same_times(self, gold: Node, answer: Node) -> bool:
        if isinstance(gold, Clock) and isinstance(answer, Clock):
            hours = 24 if gold.says_half() and answer.says_half() else 12
            return (gold.seconds - answer.seconds) % (hours * 3600) == 0
        if isinstance(gold, Clock):
            return False
        assert isinstance(answer, Clock)
        hours, seconds = divmod(answer.seconds, 3600)
        if isinstance(gold, Ratio):  # 10:15 for 2:3, 6:10:14 for 3:5:7
            parts = str(hours), str(seconds // 60), str(seconds % 60)
            return self._same_ratios(gold, Ratio(parts if seconds % 60 else parts[:2]))
        number = value(gold.text) if isinstance(gold, Leaf) else None
        return number is not None and seconds == 0 and bool(answer.half) and number in (hours, hours % 12 or 12)

    def _same_ratios(self, gold: Node, answer: Node) -> bool:
        if isinstance(gold, Ratio) and isinstance(answer, Ratio):
            if len(gold.parts) != len(answer.parts):
                return False
            zeros = [[value(part) == 0 for part in node.parts] for node in (gold, answer)]
            pairs = list(zip(gold.parts, answer.parts, strict=True))
            if zeros[0].count(False) < 2 or zeros[0] != zeros[1]:  # 1:0 is a result rather than a ratio
                return all(itertools.starmap(self._same_leaves, pairs))
            pairs = [pair for pair, is_zero in zip(pairs, zeros[0], strict=True) if not is_zero]
            numbers = [(value(one), value(other)) for one, other in pairs]
            if all(one and other for one, other in numbers):
                return len({one / other for one, other in numbers if one and other}) == 1
            return all(
                self._same_leaves(f"({one[0]}) \\cdot ({other[1]})", f"({one[1]}) \\cdot ({other[0]})")
                for one, other in itertools.pairwise(pairs)
            )
        ratio, other = (gold, answer) if isinstance(gold, Ratio) else (answer, gold)
        assert isinstance(ratio, Ratio)
        if len(ratio.parts) != 2 or not isinstance(other, Leaf):
            return False
        quotient = f"\\frac{{{ratio.parts[0]}}}{{{ratio.parts[1]}}}"
        return self._same_leaves(*((quotient, other.text) if ratio is gold else (other.text, quotient)))

    def _same_regions(self, gold: Region, answer: Region) -> bool:
        if None not in (gold.variable, answer.variable) and gold.variable != answer.variable:
            both = relations(gold, answer), relations(answer, gold)
            return all(both) and self._same_relations(*both)  # y < 3-x is x < 3-y
        if gold.holes is not None or answer.holes is not None:
            if gold.holes is None or answer.holes is None:
                return False
            leaves = tuple(map(Leaf, gold.holes)), tuple(map(Leaf, answer.holes))
            return self._same_in_any_order(*leaves)
        ends = [
            [Group("row", (Leaf(p.left), Leaf(p.right)), f"{p.closed_left:d}{p.closed_right:d}") for p in region.pieces]
            for region in (gold, answer)
        ]
        return self._same_in_any_order(*ends)

    def _same_groups(self, gold: Node, answer: Node) -> bool:
        if not isinstance(gold, Group) or not isinstance(answer, Group):
            group, other = (gold, answer) if isinstance(gold, Group) else (answer, gold)
            assert isinstance(group, Group)
            if group is answer and group.kind == "list" and len(names(group)) < 2:  # 2\sqrt3 or \sqrt{12}
                return all(self._same(gold, item) for item in group.items)
            if group.kind != "set" or len(group.items) != 1:
                return False
            return self._same(*((group.items[0], other) if group is gold else (other, group.items[0])))
        if any(one.name is not None and names(other) - {one.name} for one, other in ((gold, answer), (answer, gold))):
            return False
        if gold.kind == answer.kind == "set":
            gold, answer = without_repetitions(gold), without_repetitions(answer)
        kinds, count = {gold.kind, answer.kind}, len(gold.items)
        if count != len(answer.items) or kinds in ({"set", "tuple"}, {"set", "row"}):
            return False
        if not kinds <= {"set", "list", "tuple", "row"} and len(kinds) > 1:
            return False
        if kinds == {"tuple"} and count == 2 and gold.brackets != answer.brackets:
            return False
        if kinds == {"list", "tuple"} and count == 2 and "()" not in (gold.brackets, answer.brackets):
            return False
        if kinds == {"row"} and gold.brackets != answer.brackets:
            return False
        dots = any(isinstance(item, Dots) for item in (*gold.items, *answer.items))
        if (kinds <= {"set", "list"} or (gold.kind, answer.kind) == ("list", "row")) and not dots:
            unknowns = {name.partition("_")[0].strip() for name in names(gold)}  # x_1 and x_2 are values of one
            if len(unknowns) > 1 and not all(isinstance(item, Equation) for item in answer.items):
                return all(itertools.starmap(self._same, zip(gold.items, answer.items, strict=True)))  # whose is which
            return self._same_in_any_order(gold.items, answer.items)
        if kinds == {"cases"}:
            return self._same_in_any_order(gold.items, answer.items)
        left, right = (by_name(group) for group in (gold, answer))
        return all(itertools.starmap(self._same, zip(left, right, strict=True)))

    def _same_in_any_order(self, gold: Sequence[Node], answer: Sequence[Node]) -> bool:
        """Whether each of one has its own partner in the other. Equal texts are partners at once."""
        if len(gold) != len(answer):
            return False
        others = list(answer)
        left: list[Node] = []
        for item in gold:
            if item in others:
                others.remove(item)
            else:
                left.append(item)
        partner: dict[int, int] = {}  # of each of `others`
        known: dict[tuple[int, int], bool] = {}

        def found(one: int, tried: set[int]) -> bool:
            for place, other in enumerate(others):
                if place not in tried:
                    if (one, place) not in known:
                        known[one, place] = self._same(left[one], other)
                    if known[one, place]:
                        tried.add(place)
                        if place not in partner or found(partner[place], tried):
                            partner[place] = one
                            return True
            return False

        return all(found(one, set()) for one in range(len(left)))

    def _same_leaves(self, gold: str, answer: str) -> bool:
        if squeezed(gold) == squeezed(answer):
            return True
        gold, answer = without_letter_x(gold, answer)
        gold, gold_unit = split_unit(gold, plain=False)
        number = value(without_percent(gold))
        answer, unit = split_unit(answer, plain=number is not None)
        self.reason = contradiction(gold, answer) or ""
        if self.reason:
            return False
        if (same := same_numeral(gold, answer)) is not None:
            return same
        gold, answer = without_base(gold, answer)
        if squeezed(gold) == squeezed(answer):
            return True
        if ("\\circ" in gold_unit) != ("\\circ" in unit) and _RADIANS.search(gold + answer):
            angles = (gold, gold_unit), (answer, unit)
            gold, answer = (
                f"\\frac{{\\pi \\cdot ({text})}}{{180}}" if "\\circ" in own else text for text, own in angles
            )
        percents = [text.rstrip().endswith("%") for text in (gold, answer)]
        if any(percents):
            gold, answer = without_percent(gold), without_percent(answer)
            if all(percents):
                return self._same_values(gold, answer)
            if None not in (value(gold), value(answer)) and self._same_values(gold, answer):
                return True
            hundredth = [
                f"\\frac{{{text}}}{{100}}" if is_one else text
                for text, is_one in zip((gold, answer), percents, strict=True)
            ]
            return self._same_values(*hundredth)
        return self._same_values(gold, answer)

    def _same_values(self, gold: str, answer: str) -> bool:
        left, right = whole_number(gold), whole_number(answer)
        if left is not None and right is not None:
            return left == right
        one, other = value(gold), value(answer)
        if one is not None and other is not None:
            if one == other or "." not in gold + answer:
                return one == other
            return (
                round(one, ROUNDED) == round(other, ROUNDED)
                and abs(one - other) <= max(abs(one), abs(other)) * RELATIVE
            )
        if "\\ldots" in gold + answer:
            self.reason = "what stands between dots is not compared"
            return False
        if (one is not None or other is not None) and _INFINITE & {squeezed(gold), squeezed(answer)}:
            return False
        return self._algebra.equal(gold, answer)


def _whole(node: Node) -> int | None:
    node = node.right if isinstance(node, Equation) else node
    number = value(node.text) if isinstance(node, Leaf) else None
    return int(number) if number is not None and number.denominator == 1 else None
