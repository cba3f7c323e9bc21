"""One trainer for every family."""
