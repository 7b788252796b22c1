"""`doctor`: one page about a site, each line ok, a warning or a problem with what to do."""
