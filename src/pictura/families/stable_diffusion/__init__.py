"""Stable Diffusion 1.x, 2.x and XL (Rombach et al. 2022; Podell et al. 2023)."""
