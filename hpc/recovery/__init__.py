"""Why attempts ended, and what is to be done with each run now."""
