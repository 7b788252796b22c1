"""What a run is, what runs say, and what code inside a run uses. Knows no experiment and no scheduler."""
