"""Molecules: an MLP that reads numbered atoms, and a graph network that does not care about their numbers."""
