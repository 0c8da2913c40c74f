"""Tasks: what is right, and how far an answer is off."""
