"""Provisioned tokens/s: budgets and admission."""
