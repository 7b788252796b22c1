"""How tasks reach the cluster and come back."""

import src  # noqa: F401  First, since it says what to do where this Python lacks the packages.
