"""The model organism: a generated English, its corpus and tasks, and small encoders trained on it."""
