"""How tasks reach the cluster and come back."""
