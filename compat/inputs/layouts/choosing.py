"""The choice of recordings from a large corpus, before any audio is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from compat.inputs.layouts.layout import Entry

MOST = 3000
"""Recordings of a test set: as many as any part of LibriSpeech to test on has (2,939)."""
SEED = 1
"""Another seed chooses other recordings, and makes other scores of the same corpus."""


def rank(name: str) -> bytes:
    """Return the place of a name in an order by chance, which other names do not change."""
    return hashlib.sha256(f"{SEED} {name}".encode()).digest()


def chosen(entries: Sequence[Entry], set_name: str) -> Sequence[Entry]:
    """Return at most :data:`MOST` entries in their order, the same ones each time.

    Those without an id are called by their place among all, so that a choice renames none.
    """
    if len(entries) <= MOST:
        return entries
    named = [
        entry
        if entry.fields.get("id")
        else replace(entry, fields={**entry.fields, "id": f"{set_name}-{index:04d}"})
        for index, entry in enumerate(entries)
    ]
    best = sorted(named, key=lambda entry: rank(str(entry.fields["id"])))[:MOST]
    kept = {id(entry) for entry in best}
    return [entry for entry in named if id(entry) in kept]
