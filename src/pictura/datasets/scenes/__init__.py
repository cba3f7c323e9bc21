"""Emoji scenes: captions with an exactly checkable answer.

`grammar` says what a scene is and how it is told, `render` draws it, `stream` numbers the scenes of
each split, `write` stores them in formats that others read.
"""
