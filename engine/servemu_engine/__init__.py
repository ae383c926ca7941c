"""Runs models: knows tokens, not HTTP, not Databricks, not SQL."""
