"""Unity Catalog's registered models: one store behind MLflow's routes and the 2.1 routes."""
