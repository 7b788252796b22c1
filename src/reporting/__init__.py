"""From runs to the report: a list of blocks in French or English, and two renderers, Markdown and HTML."""
