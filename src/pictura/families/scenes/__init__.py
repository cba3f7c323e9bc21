"""The built-in model: emoji scenes from captions."""
