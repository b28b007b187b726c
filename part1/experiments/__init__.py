"""The runs behind report/results/part1_*.csv: experiments on palindromes."""
