"""What one task does: which runs a command asks for, and the code that executes one of them."""
