"""Maths: inequalities, intervals and unions of them as one thing, a region of the real line."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from evaluation.graders.answers.nodes import Comparison, Equation, Group, Leaf, Node, Piece, Region, both_signs, split
from evaluation.graders.notation import number_form, squeezed, value

VARIABLE = re.compile(r"(?:[A-Za-z]|\\[a-z]+)(?:\s*_\s*(?:\w|\{\w+\}))?'*")
_FALLING = {">": "<", "\\ge": "\\le"}
_NO_VARIABLES = {"e", "\\pi", "\\infty", "\\frac", "\\sqrt", "\\cdot"}
_LOWEST, _HIGHEST = "-\\infty", "\\infty"


def comparison(text: str) -> Region | Comparison | None:
    """What a text with <, \\le or \\ne between its sides is, where it is one: a region, if one variable is compared."""
    parts = split(text, {"<", ">", "\\le", "\\ge", "\\ne"})
    if len(parts) < 2 or not all(part for _, part in parts):
        return None
    signs = [sign for sign, _ in parts[1:]]
    sides = [part for _, part in parts]
    if all(sign in _FALLING for sign in signs):
        signs, sides = [_FALLING[sign] for sign in reversed(signs)], sides[::-1]
    places = [place for place, side in enumerate(sides) if VARIABLE.fullmatch(side)]
    rising = all(sign in ("<", "\\le") for sign in signs)
    if len(places) != 1 or not (signs == ["\\ne"] or (rising and len(sides) < 4)):
        return Comparison(tuple(sides), tuple(signs))
    place = places[0]
    name = squeezed(sides[place])
    bounds = [_bound(side) for side in sides]
    if signs == ["\\ne"]:
        return Region(holes=tuple(map(_bound, both_signs(sides[1 - place]))), variable=name)
    if len(sides) == 3 and place != 1:
        return Comparison(tuple(sides), tuple(signs))
    left, right = (bounds[place - 1] if place else _LOWEST), (bounds[place + 1] if place + 1 < len(sides) else _HIGHEST)
    closed_left, closed_right = place > 0 and signs[0] == "\\le", place + 1 < len(sides) and signs[-1] == "\\le"
    return Region((Piece(left, right, closed_left, closed_right),), variable=name)


def united(text: str, parse: Callable[[str], Node]) -> Region | None:
    """The region that a text with \\cup or \\setminus between sets is, where it is one."""
    parts = split(text, {"\\cup", "\\setminus"})
    if len(parts) < 2:
        if (without := re.fullmatch(r"(\\mathbb\s*\{?\s*R\s*\}?)\s*-\s*(\\\{.*\\\})", text)) is None:
            return None
        parts = [("", without[1]), ("\\setminus", without[2])]
    regions = [as_region(parse(part)) for _, part in parts]
    whole = regions[0]
    for (sign, _), other in zip(parts[1:], regions[1:], strict=True):
        if other is None or whole is None:
            return None
        if sign == "\\cup":
            whole = union([whole, other])
        elif normal(whole).holes == () and all(piece.left == piece.right for piece in other.pieces):
            whole = Region(holes=tuple(piece.left for piece in other.pieces))
        else:
            return None
    return whole


def joined(items: Sequence[tuple[str, Node]]) -> Node:
    """Several answers with "and", "or" or a comma between them, as one region where they are inequalities, else as a
    list."""
    nodes, how = [node for _, node in items], items[0][0]
    first = nodes[0]
    if isinstance(first, Region) and first.holes is not None and all(isinstance(node, Leaf) for node in nodes[1:]):
        more = tuple(node.text for node in nodes[1:] if isinstance(node, Leaf))
        return replace(first, holes=first.holes + more)
    if how != "," and any(isinstance(node, Region) and node.variable for node in nodes):
        regions = [as_region(node) for node in nodes]
        known = [region for region in regions if region is not None]
        if len(known) == len(nodes) and len({region.variable for region in known} - {None}) == 1:
            region = union(known) if how == "or" else _intersection(known)
            if region is not None:
                return replace(region, variable=known[0].variable)
    names = {node.name for node in nodes if isinstance(node, Equation)}
    if len(names) == 1 and isinstance(first, Equation) and all(isinstance(n, Equation | Leaf | Group) for n in nodes):
        values = [node.right if isinstance(node, Equation) else node for node in nodes]
        return Group("list", tuple(flat(values)), joined=how, name=first.name)
    return Group("list", tuple(flat(nodes)), joined=how)


def flat(nodes: Iterable[Node]) -> Iterator[Node]:
    """The nodes, of lists (\\pm 2) among them what is in them."""
    for node in nodes:
        if isinstance(node, Group) and node.kind == "list" and node.name is None:
            yield from node.items
        else:
            yield node


def as_region(node: Node) -> Region | None:
    """A node as a region, where it can be one: an interval, a set of numbers, x = 3, inequalities with commas."""
    if isinstance(node, Region):
        return node
    if isinstance(node, Equation) and node.name is not None and isinstance(node.right, Leaf):
        point = _bound(node.right.text)
        return Region((Piece(point, point, True, True),), variable=node.name)
    if not isinstance(node, Group):
        return None
    if node.kind == "tuple" and len(node.items) == 2:
        left, right = node.items
        if isinstance(left, Leaf) and isinstance(right, Leaf):
            closed = node.brackets[0] == "[", node.brackets[1] == "]"
            return Region((Piece(_bound(left.text), _bound(right.text), *closed),))
    if node.kind == "set" and all(isinstance(item, Leaf) for item in node.items):
        points = [_bound(item.text) for item in node.items if isinstance(item, Leaf)]
        return Region(tuple(Piece(point, point, True, True) for point in points))
    if node.kind == "list" and node.items and all(isinstance(item, Region | Group) for item in node.items):
        parts = [region for item in node.items if (region := as_region(item)) is not None]
        if len(parts) != len(node.items) or len({part.variable for part in parts} - {None}) > 1:
            return None
        if node.joined == "or":
            return union(parts)
        named = all(part.variable is not None for part in parts)
        return _by_their_bounds(parts) if named and node.joined == "," else None
    return None


def relations(node: Node, other: Node) -> list[tuple[str, str, str]]:
    """The inequalities left < right, left \\le right, left \\ne right that a node is all of; none where it is something
    else. An interval is one of the variable of `other`, where that has a single letter."""
    if isinstance(node, Comparison):
        pairs = zip(node.signs, itertools.pairwise(node.sides), strict=True)
        return [(b, _FALLING[sign], a) if sign in _FALLING else (a, sign, b) for sign, (a, b) in pairs]
    region = as_region(node)
    if region is None:
        return []
    sides = " ".join(other.sides) if isinstance(other, Comparison) else ""
    letters = set(re.findall(r"\\[A-Za-z]+|[A-Za-z]", sides)) - _NO_VARIABLES
    variable = region.variable or (letters.pop() if len(letters) == 1 else "")
    if not variable:
        return []
    if region.holes is not None:
        return [(variable, "\\ne", hole) for hole in region.holes]
    if len(region.pieces) != 1 or region.pieces[0].left == region.pieces[0].right:
        return []
    piece = region.pieces[0]
    below = (piece.left, "\\le" if piece.closed_left else "<", variable)
    above = (variable, "\\le" if piece.closed_right else "<", piece.right)
    return [below] * (piece.left != _LOWEST) + [above] * (piece.right != _HIGHEST)


def union(regions: Sequence[Region]) -> Region | None:
    """All that is in one of them; None where one is all numbers but some, which others might fill."""
    if any(region.holes is not None for region in regions):
        return None
    return Region(tuple(piece for region in regions for piece in region.pieces))


def _intersection(regions: Sequence[Region]) -> Region | None:
    """What is in all of them, where that can be told without ordering their bounds."""
    regions = [normal(region) for region in regions]
    if all(region.holes is not None for region in regions):
        return Region(holes=tuple(hole for region in regions for hole in region.holes or ()))
    pieces = [piece for region in regions for piece in region.pieces]
    if len(regions) != 2 or len(pieces) != 2:
        return None
    above = [piece for piece in pieces if piece.right == _HIGHEST and piece.left != _LOWEST]
    below = [piece for piece in pieces if piece.left == _LOWEST and piece.right != _HIGHEST]
    if len(above) != 1 or len(below) != 1:
        return None
    return Region((Piece(above[0].left, below[0].right, above[0].closed_left, below[0].closed_right),))


def _by_their_bounds(regions: Sequence[Region]) -> Region | None:
    """Inequalities with commas between them: joined by "and" where they overlap (x > 1, x < 2), else by "or"."""
    both = _intersection(regions)
    if both is None or both.holes is not None:
        return both
    low, high = value(both.pieces[0].left), value(both.pieces[0].right)
    if low is None or high is None:
        return None
    return both if low < high else union(regions)


def normal(region: Region) -> Region:
    """The region with pieces that touch made one, and as holes where it is all numbers but some."""
    if region.holes is not None:
        return region
    pieces = list(region.pieces)
    place = 0
    while place < len(pieces):
        one = pieces[place]
        for other in pieces:
            if other is not one and one.right == other.left and (one.closed_right or other.closed_left):
                pieces.remove(other)
                pieces[place] = Piece(one.left, other.right, one.closed_left, other.closed_right)
                break
        else:
            place += 1
    starts = {piece.left: piece for piece in pieces}
    holes: list[str] = []
    at = _LOWEST
    while (piece := starts.pop(at, None)) is not None and not (piece.closed_left or piece.closed_right):
        at = piece.right
        holes.append(at)
    if at == _HIGHEST and not starts and len(holes) == len(pieces):
        return Region(holes=tuple(holes[:-1]), variable=region.variable)
    return Region(tuple(pieces), variable=region.variable)


def _bound(text: str) -> str:
    return number_form(squeezed(text).removeprefix("+") if "\\infty" in text else text.strip())
