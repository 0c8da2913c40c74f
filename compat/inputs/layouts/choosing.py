"""Choose recordings from a large corpus, before any audio is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from compat.inputs.layouts.layout import Entry

MOST = 3000
"""Most recordings of a test set; LibriSpeech's largest test part has 2,939."""
SEED = 1
"""Seed of the choice. A change would choose other recordings, and so change scores."""


def rank(name: str) -> bytes:
    """Return a sort key of a name for a fixed random order, which other names do not change."""
    return hashlib.sha256(f"{SEED} {name}".encode()).digest()


def chosen(entries: Sequence[Entry], set_name: str) -> Sequence[Entry]:
    """Return at most :data:`MOST` entries in their order; the choice is always the same.

    Entries without an id get one from their index among all entries, so that it does not depend on
    the choice.
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
