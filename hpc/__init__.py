"""How runs reach the cluster and come back."""

import relay.installed  # noqa: F401
