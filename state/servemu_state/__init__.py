"""What outlives the process: knows rows, not HTTP, not models."""
