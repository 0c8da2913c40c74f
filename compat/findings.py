"""Inputs that a search found to break a case: written down, so that every later run tries them."""

from __future__ import annotations
