"""Pickles from outside. A pickle is a program: here it can make only arrays, lists and what else is admitted."""

import pickle
from io import BytesIO
from typing import Any

import numpy as np

from common.errors import InputError, reason_of


class _Dtype:
    """What a pickled dtype is taken for: NumPy's own believes the flags in its state, and wrong ones crash it."""

    def __init__(self, name: str, *_: Any):
        self.dtype = np.dtype(name)
        if self.dtype.hasobject:
            raise ValueError(f"an array of {name}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1]) if state[1] in ("<", ">") else self.dtype


class _Array(np.ndarray):
    """An array whose state names a `_Dtype`."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:  # type: ignore[override]
        version, shape, dtype, fortran, content = state
        super().__setstate__((version, shape, dtype.dtype, fortran, content))


def _from_buffer(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=order)  # type: ignore[call-overload]


ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(0),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(0),  # of NumPy 2
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,  # of protocol 5
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _Dtype,
    ("__builtin__", "list"): list,
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),  # bytes of Python 3 in protocol 2
}


def load_pickle(content: bytes, name: str, admitted: dict[tuple[str, str], Any] | None = None) -> Any:
    """Return what a pickle of Python 2 or 3 holds; text of Python 2 is decoded as Latin-1.

    A pickle that names any other function or class is refused before anything is called.

    Args:
        name: of the file, for messages.
        admitted: what it may name beyond ADMITTED: (module, name) to the object that is taken for it.

    Raises:
        ValueError: it is damaged, or names something else.
    """
    known = ADMITTED | (admitted or {})

    class Unpickler(pickle._Unpickler):  # that in C makes room for as many objects as a damaged pickle says it has
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in known:
                raise pickle.UnpicklingError(f"it names {module}.{name}")
            return known[module, name]

    try:
        return Unpickler(BytesIO(content), encoding="latin1", fix_imports=False).load()
    except Exception as error:  # a damaged pickle raises nearly any type
        raise InputError(f"{name} is refused: damaged, or no data file ({reason_of(error)})") from None
