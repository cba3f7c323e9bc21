"""Pictura inside other tools, one package for each; nothing here is imported unless asked for."""
