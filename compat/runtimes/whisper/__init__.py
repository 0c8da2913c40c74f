"""Ports of Whisper that own the whole task."""
