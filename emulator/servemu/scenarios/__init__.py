"""Scenarios: timed steps with expectations, played over HTTP against an emulator."""
