"""Graphs: networks that pass messages."""
