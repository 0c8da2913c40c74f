"""What goes into a model: audio, corpora, hard inputs, features, checkpoints, generated weights."""
