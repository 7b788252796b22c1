"""Why attempts ended, and what to do with each run next."""
