"""The appendix's tables: the arguments of every training script, and constants as the source files state them."""

import ast
import importlib
from collections.abc import Mapping, Sequence

from common.paths import ROOT
from report.values import Results

TRAININGS = (
    "part1/train.py",
    "part2/train.py",
    "part3/train.py",
    "part3/qm9/train.py",
    "part4/train.py",
    "part4/train_numpy.py",
)
LEFT_OUT = {"help", "print_every", "data_dir", "run_dir", "resume", "device"}  # these change no result
CONSTANTS = {
    "part1/train.py": "NUM_VALIDATION NUM_TEST CONVERGED_ACCURACY CONVERGED_TIMES UVA_2020",
    "part1/experiments/accuracy_by_length.py": "SETTINGS LENGTHS FALLING NUM_SEEDS NUM_SEEDS_FALLING LONG PATIENCE",
    "part1/experiments/gradient_flow.py": "LENGTHS SEEDS NUM_PALINDROMES",
    "part1/experiments/optimizers.py": "SETTINGS LEARNING_RATES SEEDS CURVATURE START PATH_STEPS PATH_LEARNING_RATES",
    "part1/experiments/grads_over_time.py": "SEEDS NUM_PALINDROMES",
    "part1/experiments/variants.py": "COMMON GROUPS_B_C GROUPS_A_D_E LONGER LENGTHS SEEDS",
    "part1/experiments/time_gate.py": "T P NUM_HIDDEN BATCH_SIZE NUM_TEST LEARNING_RATE CLOCK_RATE MAX_NORM "
    "TRAIN_STEPS LSTM_STEPS R_ON SMALLEST_TAU SMALLEST_R_ON SEEDS",
    "part2/dataset.py": "HELD_OUT",
    "part2/train.py": "POEM_DEFAULTS POEM_EPOCHS",
    "part2/experiments/grimm.py": "DEFAULT UVA_2021 SEEDS TEMPERATURES NUM_TEXTS TEXT_LENGTH",
    "part2/experiments/decoding.py": "PROMPT_LENGTH NUM_TEXTS TEXT_LENGTH NUM_SHORT SHORT_LENGTHS LOOP_LENGTH",
    "part2/experiments/shakespeare.py": "SETTINGS SMALL LARGE",
    "part2/experiments/poems.py": "NUM_POEMS SEEDS SETTINGS LEARNING_RATES",
    "part3/train.py": "GCN_DEFAULTS GAT_DEFAULTS",
    "part3/citation.py": "TRAINING_NODES_A_CLASS NUM_VALIDATION NUM_TEST",
    "part3/experiments/citation.py": "NUM_RUNS",
    "part3/experiments/receptive_field.py": "LAYERS NUM_SEEDS NUM_HIDDEN",
    "part3/experiments/depth.py": "LAYERS SEEDS NUM_HIDDEN",
    "part3/experiments/bots.py": "PEOPLE BOTS NUM_FEATURES NUM_HIDDEN EPOCHS NUM_SEEDS FRIENDS SAME_OPINION BEFRIENDED "
    "OPINION LOUD GIVEN_AWAY KNOWN_PEOPLE KNOWN_BOTS",
    "part3/experiments/convolution_attention.py": "NUM_RUNS EPOCHS",
    "part3/experiments/qm9.py": "MODELS DEEP EPOCHS NUM_FEW SEEDS_FEW SEEDS_ALL",
    "part4/train.py": "MOMENTUM WEIGHT_DECAY EPOCHS MILESTONES DECAY",
    "part4/numpy_network.py": "FILTER PADDING WINDOW",
    "part4/cifar10.py": "PADDING VALIDATION_SHARE",
    "part4/corruptions.py": "NOISE_STD BLUR_SIGMA BLUR_KERNEL CONTRAST_FACTOR JPEG_QUALITY",
    "part4/experiments/numpy_network.py": "SETTINGS SEEDS",
    "part4/experiments/robustness.py": "EPOCHS PRECISION SEED",
}


def values(results: Results) -> dict[str, str]:
    """Return nothing: the appendix has no measured numbers."""
    return {}


def tables(results: Results) -> dict[str, str]:
    """Return the arguments with their defaults, and the constants."""
    return {
        "appendix-arguments": longtable(
            r">{\fontseries{lc}}l>{\fontseries{lc}}L{35pt}L{3.75in}",
            ("argument", "default", "what it is"),
            {script: arguments(script) for script in TRAININGS},
        ),
        "appendix-constants": longtable(
            r">{\fontseries{lc}}l>{\fontseries{lc}}L{4.4in}",
            ("constant", "value"),
            {script: constants(script, names.split()) for script, names in CONSTANTS.items()},
        ),
    }


def arguments(script: str) -> list[tuple[str, str, str]]:
    """Return name, default and help of every argument of a script that can change a result."""
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    rows = []
    for action in module.build_parser()._actions:
        if action.dest not in LEFT_OUT:
            default = "off" if action.default is False else action.default
            default = "" if default is None else str(default)
            text = escaped(action.help % vars(action)).replace("--", "-{}-")
            rows.append((typewriter(action.option_strings[0]), typewriter(default), text))
    return rows


def constants(script: str, names: list[str]) -> list[tuple[str, str]]:
    """Return name and value of constants of a module, read from its source without running it."""
    found: dict[str, str] = {}
    for node in ast.parse((ROOT / script).read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
            target, value = node.targets[0] if isinstance(node, ast.Assign) else node.target, node.value
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts))
            found |= {ast.unparse(name): ast.unparse(part) for name, part in pairs}
    return [(typewriter(name), typewriter(found[name].replace("'", ""))) for name in names]


def typewriter(text: str) -> str:
    return rf"\code{{{escaped(text)}}}"


def escaped(text: str) -> str:
    """Return a text with a backslash before each of TeX's special characters."""
    for character in "%_&#$":
        text = text.replace(character, f"\\{character}")
    return text.replace("{", r"\{").replace("}", r"\}")


def longtable(columns: str, header: tuple[str, ...], groups: Mapping[str, Sequence[tuple[str, ...]]]) -> str:
    """Return one longtable with a heading for each group of rows."""
    lines = [rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}", r"\toprule", " & ".join(header) + r" \\"]
    lines += [r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot"]
    for group, rows in groups.items():
        lines.append(rf"\multicolumn{{{len(header)}}}{{@{{}}l@{{}}}}{{\textbf{{{typewriter(group)}}}}} \\*")
        lines += [" & ".join(row) + r" \\" for row in rows]
        lines.append(r"\addlinespace")
    return "\n".join([*lines[:-1], r"\end{longtable}"])
