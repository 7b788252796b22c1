"""Experiments of programs, a user's own functions: their configuration, and the cells that a command requests."""
