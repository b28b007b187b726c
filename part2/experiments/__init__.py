"""The runs behind report/results/part2_*.csv: experiments on text."""
