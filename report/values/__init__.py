"""The numbers and tables of each section of the report, computed from report/results/."""
