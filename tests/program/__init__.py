"""Tests of relay/program."""
