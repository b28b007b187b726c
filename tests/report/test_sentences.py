"""What the report says of its results in words, where a number would not change with them."""

from collections import defaultdict
from itertools import pairwise
from statistics import mean

from common.experiment import read_results
from part3.experiments.citation import PUBLISHED, by_setting
from part4.experiments.robustness import PUBLISHED as PUBLISHED_ANSWERS


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


def test_what_three_answers_to_question_1_2b_agree_on():
    """Below table images-published: who has the lowest measures, batch normalisation, and DenseNet beside VGG-11."""
    rows = [row for row in read_results("part4_corruption_errors") if row["corruption"] == "mean"]
    answers = {"ours": {row["model"]: (0, row["CE"], row["RCE"]) for row in rows}, **PUBLISHED_ANSWERS}
    for name, models in answers.items():
        (ce, rce) = ({model: numbers[k] for model, numbers in models.items()} for k in (1, 2))
        assert min(ce, key=ce.__getitem__) == "vgg11" and min(rce, key=rce.__getitem__) == "resnet34"
        assert (rce["densenet121"] > rce["vgg11"]) is (name == "ours")
        assert "vgg11_bn" not in models or (ce["vgg11_bn"] > ce["vgg11"] and rce["vgg11_bn"] > rce["vgg11"])
    assert [name for name in answers if "vgg11_bn" in answers[name]] == ["ours", "A"]


def test_how_the_variants_compare_on_uva_2020_s_data_sets():
    """Question 1.4: three networks learn all but the longest random combinations; the peephole LSTM is behind."""
    accuracies, steps = defaultdict(list), defaultdict(list)
    for row in read_results("part1_variants"):
        if row["family"] == "handout":
            accuracies[row["dataset"], row["T"], row["model"]].append(row["test_accuracy"])
            steps[row["dataset"], row["T"], row["model"]].append(row["steps"])
    others = ("LSTM", "GRU", "biLSTM")
    for dataset, T, model in accuracies:
        if (dataset, T) != ("randomcomb", 15) and model in others:
            assert min(accuracies[dataset, T, model]) > 0.99, (dataset, T, model)
    for dataset in ("bss", "bipalindrome"):
        for number, behind in ((accuracies, min), (steps, max)):
            of = {
                model: mean(mean(found) for (d, _, m), found in number.items() if (d, m) == (dataset, model))
                for model in (*others, "peepLSTM")
            }
            assert behind(of, key=of.__getitem__) == "peepLSTM"
    at_15 = {model: mean(accuracies["randomcomb", 15, model]) for model in (*others, "peepLSTM")}
    assert max(at_15, key=at_15.__getitem__) == "biLSTM" and min(at_15, key=at_15.__getitem__) == "peepLSTM"
