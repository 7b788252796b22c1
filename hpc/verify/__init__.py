"""Whether a run that is interrupted ends as one that is not: `verify`."""
