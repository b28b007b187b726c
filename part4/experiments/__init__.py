"""The runs behind report/results/part4_*.csv: experiments on images."""
