"""The networks: a registry by name that needs no torch, a file for each network, and the layers that they share."""
