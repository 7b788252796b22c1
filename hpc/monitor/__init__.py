"""What users do with runs after submitting them: status, logs, cancel and retry."""
