"""From YAML text to plain values and messages, and the sections that every experiment has."""
