"""Inputs of models: audio, corpora, hard inputs, features, checkpoints and generated weights."""
