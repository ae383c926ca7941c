"""How an endpoint comes up, changes and goes."""
