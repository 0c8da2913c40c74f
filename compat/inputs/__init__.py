"""What goes into a model: audio, corpora, stress inputs, features, checkpoints and generated weights."""
