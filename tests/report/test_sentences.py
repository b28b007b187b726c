"""What the report says of its results in words, where a number would not change with them."""

from itertools import pairwise
from statistics import mean

from common.experiment import read_results
from part3.experiments.citation import PUBLISHED, by_setting


def test_two_of_six_published_accuracies_are_missed():
    """Section 3.5 names them; the MLP is not counted."""
    accuracies = by_setting(read_results("part3_citation"))
    papers = {setting: number for setting, number in PUBLISHED.items() if setting[2] != "mlp"}
    below = {setting for setting, number in papers.items() if mean(accuracies[setting]) < number}
    assert len(papers) == 6 and below == {("citeseer", "public", "gat"), ("cora", "random", "gcn")}


def test_what_each_severity_costs_resnet18():
    """Question 1.2a: noise ever more; blur and contrast less again at the last step."""
    accuracy = {
        (row["corruption"], row["severity"]): row["accuracy"]
        for row in read_results("part4_robustness")
        if row["model"] == "resnet18"
    }
    for corruption in ("Gaussian noise", "Gaussian blur", "contrast"):
        at = [accuracy["clean", 0], *(accuracy[corruption, severity] for severity in range(1, 6))]
        costs = [before - after for before, after in pairwise(at)]
        assert costs[:4] == sorted(costs[:4]) and (costs[4] > costs[3]) is (corruption == "Gaussian noise")
