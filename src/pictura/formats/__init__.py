"""File formats: weights, preset folders and the hub. Nothing here runs code that a file brings along."""
