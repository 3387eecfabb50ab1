"""LiveCodeBench's tests as its files hold them: JSON, or the private ones as base 64 of zlib of a pickle of JSON.

Read piece by piece, for the tests of one problem may be hundreds of megabytes. A pickle can run any program when it is
loaded; of this one only what says that it is one string is read, anything else is refused.
"""

import base64
import codecs
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

from evaluation.graders.programs.tests import LONGEST_CASE

PIECE = 2**20  # characters or bytes at once
MOST_BYTES = 2**33  # of the tests of one problem: a small payload may unpack to any length
_FRAME, _PROTO, _STOP, _MEMOIZE = 0x95, 0x80, 0x2E, 0x94
_LENGTHS = {0x8C: 1, 0x58: 4, 0x8D: 8}  # SHORT_BINUNICODE, BINUNICODE, BINUNICODE8: bytes of the length
_PUTS = {0x71: 1, 0x72: 4}  # BINPUT, LONG_BINPUT: bytes of the number
_STRING = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)
_MARK = re.compile(r'["{}\[\]]')


class PayloadError(ValueError):
    """A payload that does not hold tests."""


def unpacked(payload: str) -> Iterator[dict[str, Any]]:
    """The tests in a column, each with input, output and testtype, one at a time. Raises `PayloadError`."""
    text = payload.lstrip()
    pieces = _slices(text) if text.startswith("[") else _unpickled(payload)
    for source in _objects(pieces):
        try:
            test = json.loads(source)
        except (ValueError, RecursionError) as error:
            raise PayloadError(f"a test is not JSON: {error}") from error
        if not all(isinstance(test.get(name), str) for name in ("input", "output", "testtype")):
            raise PayloadError(f"a test has no text as input, output and testtype: {source!r:.80}")
        yield test


def _slices(text: str) -> Iterator[str]:
    return (text[start : start + PIECE] for start in range(0, len(text), PIECE))


def _unpickled(payload: str) -> Iterator[str]:
    """The one string in base 64 of zlib of a pickle, in pieces."""
    decode = codecs.getincrementaldecoder("utf-8")()
    try:
        yield from map(decode.decode, _string_of_pickle(_Stream(_inflated(payload))))
        yield decode.decode(b"", final=True)
    except (ValueError, zlib.error) as error:  # binascii's and UnicodeDecodeError are ValueErrors
        raise PayloadError(f"the tests do not decode: {error}") from error


def _inflated(payload: str) -> Iterator[bytes]:
    inflate, length = zlib.decompressobj(), 0
    for start in range(0, len(payload), 4 * PIECE):
        data = base64.b64decode(payload[start : start + 4 * PIECE], validate=True)
        while data:
            piece = inflate.decompress(data, PIECE)
            data = inflate.unconsumed_tail
            length += len(piece)
            if length > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES} bytes")
            yield piece
    yield inflate.flush()
    if not inflate.eof or inflate.unused_data:
        raise ValueError("the compressed data end too early, or go on")


class _Stream:
    """Bytes that come in pieces, read by number."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def take(self, number: int) -> bytes:
        """So many bytes. Raises `ValueError` where there are fewer."""
        while len(self._rest) < number:
            piece = next(self._pieces, None)
            if piece is None:
                raise ValueError("the pickle ends too early")
            self._rest += piece
        taken, self._rest = self._rest[:number], self._rest[number:]
        return taken

    def number(self, length: int) -> int:
        """An integer of so many bytes."""
        return int.from_bytes(self.take(length), "little")

    def ends(self) -> bool:
        """Whether nothing is left."""
        return not self._rest and not any(self._pieces)


def _string_of_pickle(stream: _Stream) -> Iterator[bytes]:
    """The bytes of a pickle's one string, in pieces. Raises `ValueError` for a pickle of anything else."""
    strings = 0
    while (code := stream.number(1)) != _STOP:
        if code == _PROTO:
            stream.take(1)
        elif code == _FRAME:
            stream.take(8)
        elif code in _PUTS:
            stream.take(_PUTS[code])
        elif code in _LENGTHS and not strings:
            strings, left = 1, stream.number(_LENGTHS[code])
            while left:
                piece = stream.take(min(left, PIECE))
                left -= len(piece)
                yield piece
        elif code != _MEMOIZE:
            raise ValueError(f"the pickle is not one string: operation {code:#x}")
    if not strings or not stream.ends():
        raise ValueError("the pickle is not one string")


def _objects(pieces: Iterator[str]) -> Iterator[str]:
    """The texts of the objects in a JSON array of flat objects that comes in pieces."""
    text, place, start, depth, quoted = "", 0, 0, 0, False
    lists: list[str] = []  # what opened and closed one
    for piece in pieces:
        text, place, start = text[start:] + piece, place - start, 0
        if len(text) > 6 * LONGEST_CASE + PIECE:  # an escaped character may be six
            raise PayloadError("a test is too long")
        while True:
            if quoted:
                inside = _STRING.match(text, place)
                place = inside.end() if inside else place
                if place >= len(text) or text[place] == "\\":
                    break
                quoted, place = False, place + 1
                continue
            mark = _MARK.search(text, place)
            between = text[place : mark.start() if mark else len(text)]
            if depth == 0 and (between.strip(" \t\r\n,") or (mark is not None and mark[0] == '"')):
                raise PayloadError(f"an item of the tests is no object: {text[place:].lstrip():.40}")
            if mark is None:
                place = len(text)
                break
            place = mark.end()
            quoted = mark[0] == '"'
            if mark[0] in "[]" and depth == 0:
                lists.append(mark[0])
            elif mark[0] == "{":
                start, depth = (mark.start() if depth == 0 else start), depth + 1
            elif mark[0] == "}":
                depth -= 1
                if depth == 0:
                    yield text[start:place]
                    start = place
        if depth == 0:
            start = place
    if depth or quoted or lists != ["[", "]"]:
        raise PayloadError("the tests are not one JSON array, or end too early")
