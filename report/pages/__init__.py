"""README.md and the pages of docs/ that are built: a template for each, and the values that fill it."""
