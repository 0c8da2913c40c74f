"""Messages of Protocol Buffers, as SentencePiece's models are: fields without their schema.

Source: "Encoding" in the documentation of Protocol Buffers. SentencePiece itself is a compiled
extension of 1 MB, which nothing else here needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the fields of a message: number, and value.

    A value is an int where it is one, else bytes: of a text, a message or a float.

    Raises:
        ValueError: the message is cut short, or has a field of another kind.
        IndexError: it ends within a number.
    """
    place = 0

    def number() -> int:
        nonlocal place
        value, shift = 0, 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(message):
        key = number()
        match key & 7:
            case 0:
                yield key >> 3, number()
                continue
            case 1:
                size = 8
            case 2:
                size = number()
            case 5:
                size = 4
            case kind:
                raise ValueError(f"it is no model of SentencePiece: a field is of kind {kind}")
        if place + size > len(message):
            raise ValueError("it is no model of SentencePiece, or was cut short")
        yield key >> 3, message[place : place + size]
        place += size
