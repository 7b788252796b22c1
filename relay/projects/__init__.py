"""Experiments of programs, a user's own functions and commands: their configuration, and the cells requested."""
