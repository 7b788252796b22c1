"""Rows: the results of a sweep as a table, what is shown of it, and how it is ranked, written and printed."""
