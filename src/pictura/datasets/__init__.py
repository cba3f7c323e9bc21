"""Data sets that Pictura makes itself, one folder each; numpy and Pillow only."""
