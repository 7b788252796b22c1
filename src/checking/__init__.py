"""The checks before any training: what they measure of the data and the network, and how they show it."""
