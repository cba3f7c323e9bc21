"""A family as someone else would bring it: 8x8 pictures, a few thousand weights."""
