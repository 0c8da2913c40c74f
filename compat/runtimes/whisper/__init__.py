"""Ports of Whisper: libraries that do the whole decoding themselves."""
