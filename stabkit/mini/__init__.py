"""The model organism: a generated English, its corpus and tasks, and encoders trained on it."""
