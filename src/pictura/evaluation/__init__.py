"""How good are the pictures? One metric is one file; `report` runs them on a model and writes it up."""
