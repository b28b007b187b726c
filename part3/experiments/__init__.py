"""The runs behind report/results/part3_*.csv: experiments on graphs and molecules."""
