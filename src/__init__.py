"""The image experiment of the report: its configuration, data, networks, training, evaluation and report."""

import relay.installed  # noqa: F401
