"""The appendix's tables: the settings of parts 1 to 4 as the source files state them, read from there without running them."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TRAININGS = [f"{part}/train.py" for part in ("part1", "part2", "part3", "part3/qm9", "part4")] + ["part4/train_numpy.py"]
# Arguments that change no result
LEFT_OUT = {"print_every", "data_dir", "run_dir", "resume", "device"}
CONSTANTS = {
    "part1/train.py": "NUM_VALIDATION NUM_TEST CONVERGED_ACCURACY CONVERGED_TIMES",
    "part1/experiments/accuracy_by_length.py": "SETTINGS LENGTHS FALLING NUM_SEEDS NUM_SEEDS_FALLING LONG PATIENCE",
    "part1/experiments/gradient_flow.py": "LENGTHS SEEDS NUM_PALINDROMES",
    "part1/experiments/optimizers.py": "SETTINGS LEARNING_RATES SEEDS CURVATURE START PATH_STEPS PATH_LEARNING_RATES",
    "part2/train.py": "HELD_OUT POEM_DEFAULTS POEM_EPOCHS",
    "part2/experiments/grimm.py": "DEFAULT UVA_2021 SEEDS TEMPERATURES NUM_TEXTS TEXT_LENGTH",
    "part2/experiments/shakespeare.py": "SETTINGS SMALL LARGE",
    "part2/experiments/poems.py": "NUM_POEMS SEEDS SETTINGS LEARNING_RATES",
    "part3/train.py": "GCN_DEFAULTS GAT_DEFAULTS",
    "part3/citation.py": "TRAINING_NODES_A_CLASS NUM_VALIDATION NUM_TEST",
    "part3/experiments/citation.py": "NUM_RUNS",
    "part3/experiments/receptive_field.py": "LAYERS NUM_SEEDS NUM_HIDDEN",
    "part3/experiments/qm9.py": "MODELS DEEP EPOCHS NUM_FEW SEEDS_FEW SEEDS_ALL",
    "part4/train.py": "MOMENTUM WEIGHT_DECAY EPOCHS MILESTONES DECAY",
    "part4/numpy_network.py": "FILTER PADDING WINDOW",
    "part4/cifar10.py": "PADDING VALIDATION_SHARE",
    "part4/corruptions.py": "NOISE_STD BLUR_SIGMA BLUR_KERNEL CONTRAST_FACTOR JPEG_QUALITY",
    "part4/experiments/numpy_network.py": "SETTINGS SEEDS",
    "part4/experiments/robustness.py": "EPOCHS PRECISION SEED",
}


def values(results):
    return {}


def tables(results):
    return {
        "appendix-arguments": longtable(
            r">{\fontseries{lc}}l>{\fontseries{lc}}lL{3.3in}",
            ("argument", "default", "what it is"),
            {script: arguments(script) for script in TRAININGS},
        ),
        "appendix-constants": longtable(
            r">{\fontseries{lc}}l>{\fontseries{lc}}L{4.1in}",
            ("constant", "value"),
            {script: constants(script, names.split()) for script, names in CONSTANTS.items()},
        ),
    }


def arguments(script):
    """Return name, default and help of every argument of a script."""
    defined = assignments(script)
    rows = []
    for call in ast.walk(tree(script)):
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(("add", "add_argument")):
            name, keywords = call.args[0].value[2:], {keyword.arg: keyword.value for keyword in call.keywords}
            default = keywords.get("default", ast.Constant("off" if "action" in keywords else ""))
            if name not in LEFT_OUT:
                rows.append((f"--{name}", source(defined.get(getattr(default, "id", None), default)), keywords["help"].value))
    return [(typewriter(name), typewriter(default), escaped(text).replace("--", "-{}-")) for name, default, text in rows]


def constants(script, names):
    defined = assignments(script)
    return [(typewriter(name), typewriter(source(defined[name]))) for name in names]


def assignments(script):
    """Return the value of every name that a module assigns to, as a syntax tree."""
    found = {}
    for node in tree(script).body:
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            pairs = zip(target.elts, value.elts) if isinstance(target, ast.Tuple) else [(target, value)]
            found |= {name.id: part for name, part in pairs}
    return found


def tree(script):
    return ast.parse((ROOT / script).read_text(encoding="utf-8"))


def source(value):
    return ast.unparse(value).replace("'", "")


def typewriter(text):
    return rf"\code{{{escaped(text)}}}"


def escaped(text):
    for character in "%_&#$":
        text = text.replace(character, f"\\{character}")
    return text.replace("{", r"\{").replace("}", r"\}")


def longtable(columns, header, groups):
    """Return one longtable with a heading for each group of rows."""
    lines = [rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}", r"\toprule", " & ".join(header) + r" \\", r"\midrule", r"\endhead"]
    lines += [r"\bottomrule", r"\endfoot"]
    for group, rows in groups.items():
        lines.append(rf"\multicolumn{{{len(header)}}}{{@{{}}l@{{}}}}{{\textbf{{{typewriter(group)}}}}} \\*")
        lines += [" & ".join(row) + r" \\" for row in rows]
        lines.append(r"\addlinespace")
    return "\n".join([*lines[:-1], r"\end{longtable}"])
