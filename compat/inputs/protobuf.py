"""Read messages of Protocol Buffers without their schema; SentencePiece's models are such messages.

Source: "Encoding" in the documentation of Protocol Buffers. This avoids the package SentencePiece,
a compiled extension of 1 MB that nothing else needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of each field of a message.

    Integers are yielded as int; texts, inner messages and floats as bytes.

    Raises:
        ValueError: the message is cut short, or has a field of an unknown kind.
        IndexError: the message ends within a number.
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
