"""The type stub of the native module says what the module really has."""

import ast
import re
from pathlib import Path

import latens
from latens import _native

STUB = Path(latens.__file__).with_name("_native.pyi")
Signatures = dict[str, list[str] | None]


def stubbed() -> Signatures:
    """Parameters of each function and method, ``None`` for constants."""
    found: Signatures = {}
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.Expr):  # a docstring
                    continue
                assert isinstance(method, ast.FunctionDef)
                found[f"{node.name}.{method.name}"] = [a.arg for a in method.args.args]
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = [a.arg for a in node.args.args]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = None
    return {name: what for name, what in found.items() if not name.startswith("_")}  # without its own aliases


def parameters(thing: object) -> list[str]:
    """By the signature that nanobind writes into the documentation."""
    signature = (thing.__doc__ or "").splitlines()[0]
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    changes = 1
    while changes:  # types and defaults have commas of their own
        inside, changes = re.subn(r"\[[^\[\]]*\]|\([^()]*\)", "", inside)
    return [part.split(":")[0].strip() for part in inside.split(",") if part.strip()]


def real() -> Signatures:
    found: Signatures = {}
    for name, thing in vars(_native).items():
        if name.startswith("_"):
            continue
        if isinstance(thing, type):
            special = {
                m for m in ("__init__", "__len__") if type(vars(thing).get(m)).__module__ == "nanobind"
            }
            for member in {m for m in vars(thing) if not m.startswith("_")} | special:
                found[f"{name}.{member}"] = parameters(vars(thing)[member])
        else:
            found[name] = parameters(thing) if callable(thing) else None
    return found


def test_the_stub_has_everything_and_nothing_else() -> None:
    assert stubbed() == real()


def test_the_package_is_typed() -> None:
    assert STUB.with_name("py.typed").is_file()
