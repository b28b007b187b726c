"""Imports a submission as its own scripts import it, and constructs what it defines, in the process of one probe.

What cannot be used raises `Unusable` with a key, so that all probes that need it fail for one stated cause. Modules
are looked for in the part's folder, in those above it up to the submission's root, and by the names of these folders:
`from model import`, `from part2.model import` and `from assignment2.part2.model import` all work, whatever the folder
is called now. This project's own packages are found only if they are the submission.
"""

import ast
import importlib
import importlib.util
import inspect
import math
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from torch import nn

from grading.editions import Part
from grading.submission import UnreadableNotebook, defined, file_of, folders_below, notebook_cells, source_of

REFERENCE = ("common", "recurrence", "part1", "part2", "part3", "part4", "report", "benchmarks", "tests")
# Packages that are no part of an answer: where one is missing, what uses it is not judged, and the rest is.
OPTIONAL = (
    *("torchvision", "matplotlib", "seaborn", "plotly", "pandas", "scipy", "sklearn", "PIL", "IPython", "ipywidgets"),
    *("tqdm", "tensorboard", "tensorboardX", "wandb", "torchsummary", "torchtext", "pytorch_lightning", "lightning"),
    *("torch_geometric", "torch_scatter", "torch_sparse", "nltk", "unidecode", "yaml", "tabulate"),
)
INERT = ("matplotlib", "seaborn", "plotly", "pandas", "IPython", "tensorboard", "tensorboardX", "wandb", "torchsummary")
SYNONYMS = {
    "seq_length": (
        "seq_length",
        "sequence_length",
        "seq_len",
        "input_length",
        "length",
        "input_seq_length",
        "max_seq_length",
    ),
    "input_dim": ("input_dim", "input_size", "in_dim", "input_dimension"),
    "num_hidden": ("num_hidden", "hidden_dim", "hidden_size", "n_hidden", "lstm_num_hidden", "lstm_hidden_dim"),
    "num_classes": ("num_classes", "output_dim", "n_classes", "num_outputs"),
    "batch_size": ("batch_size", "bs"),
    "device": ("device",),
    "vocabulary_size": ("vocabulary_size", "vocab_size", "num_symbols"),
    "embedding_size": ("embedding_size", "embedding_dim", "embed_dim", "dim_embed", "emb_dim"),
    "num_layers": ("lstm_num_layers", "num_layers", "n_layers"),
    "log_probs": ("log_probs",),
}


class NotJudged(Exception):
    """A probe does not know the form that it meets: neither passed nor failed.

    Args:
        key: of the package that is missing, where that is the reason.
    """

    def __init__(self, message: str, key: str = ""):
        super().__init__(message)
        self.key = key


class Unusable(Exception):
    """What a probe is about cannot be used. All probes with the same key have the same cause.

    Args:
        key: the stage and its object: "import model.py", "construct LSTM", "call LSTM".
        message: what was found.
        place: file and line, if known.
        is_stub: nothing has been implemented there.
        lines: of the submission's calls that led there, the outermost first.
    """

    def __init__(self, key: str, message: str, place: str = "", is_stub: bool = False, lines: Sequence[float] = ()):
        super().__init__(message)
        self.key, self.message, self.place, self.is_stub, self.lines = key, message, place, is_stub, list(lines)


def furthest(errors: list[Exception]) -> Exception:
    """Return, of the errors of several forms of a call, that of the form that fits best: it came furthest.

    One that only lacks a package fits as well as can be.
    """
    return max(errors, key=lambda error: error.lines if isinstance(error, Unusable) else [math.inf])


class Missing:
    """Stands for a package that is not installed: it can be imported and named, and says so where it is used."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, name: str) -> "Missing":
        if name.startswith("__"):
            raise AttributeError(name)
        return Missing(f"{self._name}.{name}")

    def __call__(self, *_: object, **__: object) -> "Missing":
        if self._name.split(".")[0] in INERT:
            return self
        raise self._not_judged()

    __getitem__ = __enter__ = __call__

    def __setitem__(self, *_: object) -> None:
        self()

    def __exit__(self, *_: object) -> None:
        self()

    def __iter__(self) -> Iterator:
        raise self._not_judged()  # how many there would be is not known

    def __mro_entries__(self, _: tuple) -> tuple:
        return ()

    def _not_judged(self) -> NotJudged:
        package = self._name.split(".")[0]
        return NotJudged(f"it uses {self._name}, and {package} is not installed here", key=f"package {package}")


class MissingModule(types.ModuleType):
    """A module of a package that is not installed."""

    __path__: list[str] = []  # noqa: RUF012, as a package has it

    def __getattr__(self, name: str) -> Missing:
        if name.startswith("__"):
            raise AttributeError(name)
        return Missing(f"{self.__name__}.{name}")


class Finder:
    """Finds a submission's modules, and none of this project's own; stands first on `sys.meta_path`."""

    def __init__(self, folder: Path, root: Path):
        self.folders = [folder, *(above for above in folder.parents if above.is_relative_to(root))]
        self.packages = {above.name: [str(above)] for above in self.folders}
        around = [*self.folders, folder.parent]
        files = [path for place in (*folders_below(folder), *self.folders[1:]) for path in place.glob("*.py")]
        for path in files:
            for package, inner in re.findall(r"^\s*(?:from|import) (\w+)\.(\w+)", source_of(path), re.MULTILINE):
                places = [
                    str(place) for place in around if (place / inner).exists() or (place / f"{inner}.py").exists()
                ]
                if places and package not in sys.modules:
                    self.packages.setdefault(package, places)

    def find_spec(self, name: str, path: Sequence[str] | None, _: object = None) -> ModuleSpec | None:
        top = name.split(".")[0]
        if path is None:
            spec = PathFinder.find_spec(name, [str(folder) for folder in self.folders])
            if spec and spec.loader:
                return spec
            elsewhere = None if top in REFERENCE else PathFinder.find_spec(name)
            if elsewhere and elsewhere.loader:
                return elsewhere
            if name in self.packages:
                spec = ModuleSpec(name, None, is_package=True)
                spec.submodule_search_locations = self.packages[name]
            if spec:
                return spec
            if top in REFERENCE:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if top in OPTIONAL and (path is None or not path):
            return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return MissingModule(spec.name)

    def exec_module(self, _: types.ModuleType) -> None:
        pass


class Kept:
    """What a module keeps on itself beside its parameters, so that a call can start as the first one did.

    A state that is kept from call to call is a fault, which one probe names; the others judge the rest.
    """

    def __init__(self, net: Any):
        self.net = net
        self._kept = [self._of(module) for module in net.modules()]

    def restore(self) -> None:
        for module, kept in zip(self.net.modules(), self._kept):
            for name in self._of(module).keys() - kept.keys():
                delattr(module, name)
            vars(module).update(kept)

    @staticmethod
    def _of(module: Any) -> dict[str, Any]:
        return {name: value for name, value in vars(module).items() if name[0] != "_" and name != "training"}


class Code:
    """The code of a submission's part: what a probe asks of it, by the names that the handout fixes."""

    def __init__(self, part: Part, folder: Path, root: Path):
        self.part, self.folder, self.root = part, folder, root
        sys.meta_path.insert(0, Finder(folder, root))  # type: ignore[arg-type]
        self._scopes: dict[Path, dict[str, Any]] = {}

    def file(self, name: str) -> Path:
        """Return the file that defines a name; for the name of a file itself, that file."""
        if name.endswith(".py"):
            if not (self.folder / name).is_file():
                if any(self.folder.glob("*.ipynb")):
                    raise NotJudged(f"there is no {name}; what a notebook's cells do beside definitions is not run")
                raise Unusable(f"name {name}", f"there is no {name} in {self._shown(self.folder)}")
            return self.folder / name
        path = file_of(self.part, self.folder, name)
        if path:
            return path
        files = [pattern for pattern, names in self.part.files.items() if name in names]
        there = [self.folder / pattern for pattern in files if (self.folder / pattern).is_file()]
        if not there:
            message = f"no file defines {name}; the handout has it in {files[0] if files else 'no file of its own'}"
            raise Unusable(f"name {name}", message)
        others = [other for other in defined(there[0]) if other.lower() == name.lower()]
        hint = f", but {others[0]}" if others else ""
        if not others and "import" in source_of(there[0]):
            self._scope(there[0])  # it may be imported there from elsewhere, or the file cannot be imported at all
            if name in self._scopes[there[0]]:
                return there[0]
        raise Unusable(f"name {name}", f"{there[0].name} does not define {name}{hint}", self._shown(there[0]))

    def load(self, name: str) -> Any:
        """Return the class or function of this name.

        Raises:
            Unusable: its file cannot be imported, does not define it, or has nothing but the template's stub.
        """
        path = self.file(name)
        scope = self._scope(path)
        if name not in scope:
            raise Unusable(f"name {name}", f"{path.name} does not define {name} when it is imported", self._shown(path))
        tree = defined(path).get(name)
        if tree is not None and is_stub(tree):
            raise Unusable(f"stub {name}", "not implemented", self.place(name), is_stub=True)
        return scope[name]

    def module(self, name: str) -> dict[str, Any]:
        """Return the names of the module that defines `name`."""
        return self._scope(self.file(name))

    def source(self, name: str) -> str:
        return source_of(self.file(name))

    def construct(self, name: str, values: dict[str, Any]) -> Any:
        """Return a network, its constructor's parameters filled by what they are called, or by their places.

        Raises:
            Unusable: the class cannot be had, its constructor fails, or asks for what the handout does not give, or
                what it makes is no `nn.Module` with parameters.
        """
        cls = self.load(name)
        given = {synonym: values[key] for key, synonyms in SYNONYMS.items() if key in values for synonym in synonyms}
        given |= values
        words: dict[str, Any] = {}
        unknown = []
        for parameter in list(inspect.signature(cls).parameters.values()):
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if parameter.name in given:
                words[parameter.name] = given[parameter.name]
            elif parameter.default is parameter.empty:
                unknown.append(parameter.name)
        places: list[Any] = []
        signature = self.part.signatures.get(name, [])
        if unknown:
            names = [p.name for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
            if len(names) > len(signature):
                message = f"its constructor asks for {', '.join(unknown)}; the handout's is ({', '.join(signature)})"
                raise Unusable(f"construct {name}", message, self.place(name, "__init__"))
            places, words = [given[word] for word in signature[: len(names)]], {}
        try:
            net = cls(*places, **words)
        except BaseException as error:
            raise self.unusable(f"construct {name}", error) from None
        if not isinstance(net, nn.Module) or not list(net.parameters()):
            what = "has no parameters" if isinstance(net, nn.Module) else "is no nn.Module"
            raise Unusable(f"construct {name}", f"{name} {what}", self.place(name, "__init__"))
        return net

    def call(self, key: str, function: Callable[..., Any], *arguments: Any, **words: Any) -> Any:
        """Return what a function returns; if it fails or returns nothing, raise Unusable with this key."""
        try:
            result = function(*arguments, **words)
        except BaseException as error:
            raise self.unusable(key, error) from None
        if result is None:
            name = key.split()[-1]
            raise Unusable(key, "not implemented: it returns None", self.place(name), is_stub=True)
        return result

    def unusable(self, key: str, error: BaseException) -> Exception:
        """Return the exception that stands for one raised by the submission's code."""
        if isinstance(error, Unusable | NotJudged):
            return error
        if "'Missing'" in str(error):
            return NotJudged("it uses a package that is not installed here", key="package")
        if isinstance(error, NotImplementedError):
            return Unusable(key, "not implemented", self.crash_place(error), is_stub=True)
        lines = [frame.lineno or 0 for frame in self._frames(error)]
        return Unusable(key, crash(error), self.crash_place(error), lines=lines)

    def crash_place(self, error: BaseException) -> str:
        """Return the submission's last line that led to an exception, as file:line."""
        if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_relative_to(self.root):
            return f"{self._shown(Path(error.filename))}:{error.lineno}"
        inside = self._frames(error)
        return f"{self._shown(Path(inside[-1].filename))}:{inside[-1].lineno}" if inside else ""

    def _frames(self, error: BaseException) -> list[traceback.FrameSummary]:
        frames = traceback.extract_tb(error.__traceback__)
        return [frame for frame in frames if Path(frame.filename).is_relative_to(self.root)]

    def place_of(self, subject: str | None, about: str) -> str:
        """Return where to look for what a probe is about: a file, a function, or a method of its subject."""
        if about.endswith(".py") or any(about in names for names in self.part.files.values()):
            return self.place(about)
        return self.place(subject, about) if subject else ""

    def place(self, name: str, method: str | None = None) -> str:
        """Return where a class, one of its methods, or a function is defined, as file:line."""
        try:
            path = self.file(name)
        except Unusable:
            return ""
        tree = defined(path).get(name)
        if path.suffix == ".ipynb":
            number = next(cell.number for cell in notebook_cells(path) if re.search(rf"\b{name}\b", cell.source))
            return f"{self._shown(path)}, cell {number}"
        if tree is None:
            return self._shown(path)
        methods = [n for n in getattr(tree, "body", ()) if isinstance(n, ast.FunctionDef) and n.name == method]
        line = methods[0].lineno if methods else getattr(tree, "lineno", 1)
        return f"{self._shown(path)}:{line}"

    def _shown(self, path: Path) -> str:
        shown = str(path.relative_to(self.root)) if path.is_relative_to(self.root) else path.name
        return shown.replace("#cell", ", cell ")

    def _scope(self, path: Path) -> dict[str, Any]:
        if path not in self._scopes:
            self._scopes[path] = self._notebook(path) if path.suffix == ".ipynb" else self._import(path)
        return self._scopes[path]

    def _import(self, path: Path) -> dict[str, Any]:
        try:
            return vars(importlib.import_module(path.stem))
        except BaseException as error:
            raise self.unusable(f"import {path.name}", error) from None

    def _notebook(self, path: Path) -> dict[str, Any]:
        """Return a notebook's names: its imports, functions, classes and constants are run, and nothing else."""
        try:
            cells = notebook_cells(path)
        except UnreadableNotebook as error:
            raise Unusable(f"import {path.name}", str(error), self._shown(path)) from None
        scope: dict[str, Any] = {"__name__": path.stem}
        kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
        for cell in cells:
            filename = f"{path}#cell{cell.number}"
            try:
                kept: list[ast.stmt] = [
                    node for node in ast.parse(cell.source, filename).body if isinstance(node, kinds)
                ]
                exec(compile(ast.Module(kept, []), filename, "exec"), scope)
            except BaseException as error:
                raise self.unusable(f"import {path.name}", error) from None
        return scope


def crash(error: BaseException) -> str:
    """Return what an exception says, on one line; of one that says nothing, the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    if not str(error).strip() and frames:
        return f"{type(error).__name__}: {frames[-1].line}"
    if "not compiled with CUDA" in str(error) or "No CUDA GPUs" in str(error):
        return "it moves to a GPU although its device is cpu"
    if isinstance(error, ModuleNotFoundError):
        return f"{error}: it is not installed here, or was not handed in"
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def is_stub(tree: ast.AST) -> bool:
    """Return whether a function, or a class's forward, has nothing in it but what a template has."""
    if isinstance(tree, ast.ClassDef):
        methods = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        return any(node.name == "forward" and is_stub(node) for node in methods)
    return isinstance(tree, ast.FunctionDef) and all(map(is_nothing, tree.body))


def is_nothing(node: ast.stmt) -> bool:
    """Return whether a statement does nothing: pass, a docstring, `x = None`, return, raise NotImplementedError."""
    if isinstance(node, ast.Assign | ast.Expr):
        return isinstance(node.value, ast.Constant) and (isinstance(node, ast.Expr) or node.value.value in (None, ...))
    if isinstance(node, ast.Return):
        return node.value is None or isinstance(node.value, ast.Name | ast.Constant)
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Raise) and "NotImplementedError" in ast.dump(node))
