"""The networks: a registry by name that needs no torch, one file per network, and the layers they share."""
