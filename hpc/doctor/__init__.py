"""`doctor`: one page about a site, where each line is ok, a warning, or a problem with its fix."""
