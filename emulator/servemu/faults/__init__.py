"""Failures on demand: rules, presets, effects, ledger."""
