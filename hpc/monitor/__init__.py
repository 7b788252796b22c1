"""What users do with runs after they submitted them: status, logs, cancel and retry."""
