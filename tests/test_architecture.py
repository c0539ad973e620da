"""The rules of docs/architecture.md: which package may import which, file length, and the functions of the backends."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from k3seq.runtime import matrix as matrix_file

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "k3seq"
FRAMEWORKS = ("jax", "jaxlib", "tensorflow", "torch")
KERAS = ("keras", *FRAMEWORKS)
MODELS = ("k3seq.layers", "k3seq.models")
TRAIN = ("k3seq.backend", "k3seq.train", "k3seq.decode")
TOOLS = ("k3seq.parity", "k3seq.bench", "k3seq.report", "k3seq.inspect", "k3seq.commands", "k3seq.cli")

# Modules of parity and bench that run in the worker processes, where Keras is; the others run beside them, without it.
IN_WORKERS = (
    "k3seq.parity.worker",
    "k3seq.parity.subject",
    "k3seq.parity.gradients",
    "k3seq.parity.trace",
    "k3seq.parity.own_cases.attending",
    "k3seq.parity.stock_cases",
    *(f"k3seq.parity.divergences.{name}" for name in ("layers", "numbers", "recurrent", "shapes", "training", "observation")),
    "k3seq.bench.subjects",
    "k3seq.bench.peers",
)

# package or module -> what neither it nor anything in it may import
NEVER = {
    "k3seq": FRAMEWORKS,
    "k3seq.arguments": KERAS,
    "k3seq.errors": (*KERAS, "k3seq"),
    "k3seq.typing": (*KERAS, "k3seq"),
    "k3seq.runtime": (*KERAS, *MODELS, *TRAIN, *TOOLS, "k3seq.data"),
    "k3seq.data": (*KERAS, *MODELS, *TRAIN, *TOOLS, "k3seq.runtime"),
    "k3seq.metrics": (*KERAS, *MODELS, *TRAIN, *TOOLS, "k3seq.runtime"),
    "k3seq.report": (*KERAS, *MODELS, *TRAIN, "k3seq.runtime.workers"),
    "k3seq.random.bits": KERAS,
    "k3seq.random": (*MODELS, *TRAIN, *TOOLS),
    "k3seq.backend": (*MODELS, "k3seq.train", "k3seq.decode", *TOOLS),
    "k3seq.layers": ("k3seq.models", "k3seq.train", "k3seq.decode", "k3seq.seq2seq", *TOOLS),
    "k3seq.decode": (*MODELS, "k3seq.train", "k3seq.seq2seq", *TOOLS),
    "k3seq.train": ("k3seq.models", "k3seq.seq2seq", "k3seq.parity", "k3seq.bench", "k3seq.commands", "k3seq.cli"),
    "k3seq.models": ("k3seq.seq2seq", *TOOLS),
    "k3seq.seq2seq": ("k3seq.models", *TOOLS),
    "k3seq.inspect": ("k3seq.parity", "k3seq.bench", "k3seq.commands", "k3seq.cli"),
    "k3seq.parity": (*MODELS, "k3seq.bench", "k3seq.commands", "k3seq.cli"),
    "k3seq.bench": (*MODELS, "k3seq.commands", "k3seq.cli"),
}
# package or module -> what it may import inside functions only, so that `import k3seq` and `k3seq --help` stay quick
NOT_AT_THE_TOP = {
    "k3seq.__init__": (*KERAS, "numpy", "k3seq"),
    "k3seq.cli": (*KERAS, "numpy", "rich", *MODELS, *TRAIN, "k3seq.commands"),
    "k3seq.commands": (*KERAS, *MODELS, *TRAIN, "k3seq.inspect"),
    "k3seq.data": ("grain",),
    "k3seq.parity": KERAS,
    "k3seq.bench": KERAS,
}
# Exceptions to the rules above: module -> names it may import all the same.
NAMES = ("jax", "tensorflow", "torch")
EXCEPTIONS = {f"k3seq.backend.{p.stem}": (n, f"{n}lib") for n in NAMES for p in (PACKAGE / "backend").glob(f"{n}*.py")}
EXCEPTIONS |= {f"k3seq.bench.peers.{name}_lstm": (name,) for name in ("jax", "torch")}  # loops written in a framework alone
EXCEPTIONS |= {name: KERAS[:1] for name in IN_WORKERS}
EXCEPTIONS["k3seq.runtime.backend_check"] = (
    "keras",
)  # inside a function: on an unknown backend it shows whether Keras loads it
EXCEPTIONS["k3seq.random.weights"] = ("k3seq.backend.keras_internals",)
# They are light: what all commands share, and the options of train.
EXCEPTIONS["k3seq.cli"] = tuple(f"k3seq.commands.{name}" for name in ("invocation", "options", "process", "train_options"))
# The reproducers show k3seq's own answer beside what Keras does.
EXCEPTIONS["k3seq.parity.divergences.layers"] = EXCEPTIONS["k3seq.parity.divergences.recurrent"] = ("keras", "k3seq.layers")
# The only packages that import the backend.
MAY_USE_BACKEND = (
    "k3seq.backend",
    "k3seq.layers",
    "k3seq.decode",
    "k3seq.seq2seq",
    "k3seq.models",
    "k3seq.train",
    "k3seq.inspect",
    "k3seq.commands",
    *IN_WORKERS,
)


def inside(module, package):
    return module == package or module.startswith(package + ".")


def imports(tree, module, package=False):
    """(name, line, at the top) of every import; `from a import b` gives both `a` and `a.b`, relative ones are made absolute."""
    held = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: len(module.split(".")) - node.level + package] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            names = [source, *(f"{source}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            names = [a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        for name in names:
            yield name, node.lineno, id(node) not in held


def violations(package):
    """What breaks the rules in a tree of files whose root stands for `k3seq`; as `module:line imports name`."""
    for path in sorted(package.rglob("*.py")):
        parts = ["k3seq", *path.relative_to(package).with_suffix("").parts]
        module = ".".join(parts)
        name_of_module = module.removesuffix(".__init__")
        excepted = [n for p, names in EXCEPTIONS.items() if inside(name_of_module, p) for n in names]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name, line, top in imports(tree, name_of_module, parts[-1] == "__init__"):
            refused = [n for p, names in NEVER.items() if inside(name_of_module, p) for n in names]
            if top:
                refused += [n for p, names in NOT_AT_THE_TOP.items() if inside(name_of_module, p) or module == p for n in names]
            if not any(inside(name_of_module, p) for p in MAY_USE_BACKEND):
                refused.append("k3seq.backend")
            if any(inside(name, allowed) for allowed in excepted):
                continue
            if any(inside(name, p) and not (p == "k3seq" and inside(name, "k3seq.errors")) for p in refused):
                yield f"{module}:{line} imports {name}"


def test_no_package_imports_what_it_must_not():
    assert list(violations(PACKAGE)) == []


PLANTED = [
    ("layers/bad.py", "import torch.nn", "k3seq.layers.bad:1 imports torch.nn"),
    ("layers/bad.py", "def f():\n    from jax import numpy", "k3seq.layers.bad:2 imports jax"),
    ("layers/bad.py", "from k3seq import models", "k3seq.layers.bad:1 imports k3seq.models"),
    ("layers/bad.py", "from ..models import lstm", "k3seq.layers.bad:1 imports k3seq.models"),
    ("random/bad.py", "import k3seq.backend", "k3seq.random.bad:1 imports k3seq.backend"),
    ("layers/bad.py", "import importlib\nimportlib.import_module('jax')", "k3seq.layers.bad:2 imports jax"),
    ("backend/torch.py", "import jax", "k3seq.backend.torch:1 imports jax"),
    ("backend/step.py", "import tensorflow as tf", "k3seq.backend.step:1 imports tensorflow"),
    ("data/bad.py", "def f():\n    import keras", "k3seq.data.bad:2 imports keras"),
    ("data/bad.py", "import grain", "k3seq.data.bad:1 imports grain"),
    ("metrics/bad.py", "from keras import ops", "k3seq.metrics.bad:1 imports keras"),
    ("runtime/matrix.py", "import keras", "k3seq.runtime.matrix:1 imports keras"),
    ("runtime/workers.py", "import keras", "k3seq.runtime.workers:1 imports keras"),
    ("random/bits.py", "import keras", "k3seq.random.bits:1 imports keras"),
    ("errors.py", "from k3seq.runtime import matrix", "k3seq.errors:1 imports k3seq.runtime.matrix"),
    ("decode/bad.py", "from k3seq.layers.masks import x", "k3seq.decode.bad:1 imports k3seq.layers.masks"),
    ("decode/bad.py", "import k3seq.models", "k3seq.decode.bad:1 imports k3seq.models"),
    ("parity/worker.py", "import k3seq.models", "k3seq.parity.worker:1 imports k3seq.models"),
    ("bench/worker.py", "def f():\n    import k3seq.layers", "k3seq.bench.worker:2 imports k3seq.layers"),
    ("cli.py", "import keras", "k3seq.cli:1 imports keras"),
    ("parity/suite.py", "import keras", "k3seq.parity.suite:1 imports keras"),
    ("cli.py", "from k3seq.commands import train", "k3seq.cli:1 imports k3seq.commands"),
    ("commands/bad.py", "from k3seq import models", "k3seq.commands.bad:1 imports k3seq.models"),
    ("__init__.py", "import numpy", "k3seq.__init__:1 imports numpy"),
    ("__init__.py", "from . import models", "k3seq.__init__:1 imports k3seq"),
]


@pytest.mark.parametrize("file, code, found", PLANTED, ids=[f"{f}: {c.splitlines()[-1].strip()}" for f, c, _ in PLANTED])
def test_a_planted_import_is_found(tmp_path, file, code, found):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(code)
    assert found in list(violations(tmp_path))


def test_allowed_imports_are_not_refused(tmp_path):
    allowed = {
        "backend/jax.py": "import jax\nimport jaxlib",
        "layers/recurrent.py": "import keras\nfrom k3seq import backend, errors",
        "parity/worker.py": "def f():\n    import keras",
        "data/a.py": "import numpy\nfrom k3seq.errors import DataError\ndef f():\n    import grain",
        "commands/a.py": "from k3seq.runtime import workers\ndef f():\n    from k3seq.models import registry",
        "models/a.py": "from k3seq import backend\nfrom k3seq.decode import loop",
    }
    for file, code in allowed.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(code)
    assert list(violations(tmp_path)) == []


def python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("module", ["k3seq", "k3seq.cli", "k3seq.runtime.matrix", "k3seq.runtime.workers", "k3seq.errors"])
def test_what_chooses_the_backend_imports_neither_keras_nor_a_framework(module):
    heavy = python(
        f"import sys, {module}; print([n for n in {(*KERAS, 'numpy', 'grain', 'matplotlib')!r} if n in sys.modules])"
    )
    assert heavy == "[]"


@pytest.mark.parametrize("module", ["data", "metrics"])
def test_data_and_metrics_import_neither_keras_nor_a_framework(module):
    """Every module of the package, not only what its `__init__` pulls in."""
    names = [f"k3seq.{module}", *(f"k3seq.{module}.{p.stem}" for p in (PACKAGE / module).glob("[!_]*.py"))]
    assert python(f"import sys, {', '.join(names)}; print([n for n in {KERAS!r} if n in sys.modules])") == "[]"


def too_long(root, reasons):
    """The Python files of over 300 lines whose path does not stand, in backticks and with a reason, on the page `reasons`."""
    folders = [root / name for name in ("k3seq", "tests", "examples")]
    long = [p for folder in folders for p in folder.rglob("*.py") if len(p.read_text(encoding="utf-8").splitlines()) > 300]
    names = [p.relative_to(root).as_posix() for p in sorted(long)]
    return [n for n in names if not re.search(rf"`{re.escape(n)}`[^\n]*\w+ \w+", reasons)]


def test_no_file_is_over_300_lines_without_a_reason():
    assert too_long(ROOT, (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")) == []


def test_a_long_file_is_found_unless_its_reason_is_given(tmp_path):
    (tmp_path / "k3seq").mkdir()
    (tmp_path / "k3seq" / "long.py").write_text("x = 1\n" * 301)
    (tmp_path / "k3seq" / "short.py").write_text("x = 1\n" * 300)
    assert too_long(tmp_path, "`k3seq/long.py`") == ["k3seq/long.py"]
    assert too_long(tmp_path, "`k3seq/long.py`: one table of constants") == []


def _arguments(function):
    """The arguments of a function without their types."""
    for argument in ast.walk(function.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return ast.unparse(function.args)


def signatures(source):
    """Public name -> its arguments (of a class: those of each public method) of the definitions and constants of a module, and
    of those that it hands on from another one (`import name as name`)."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = _arguments(node)
        elif isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
            # Keras itself hands `state` to the steps on JAX, and only there
            found[node.name] = {m.name: _arguments(m).replace("self, state, ", "self, ") for m in methods}
        elif isinstance(node, ast.Assign):
            found |= {t.id: None for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.ImportFrom) and any(alias.asname == alias.name for alias in node.names):
            there = signatures((PACKAGE.parent / node.module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8"))
            found |= {alias.name: there[alias.name] for alias in node.names}
    return {name: arguments for name, arguments in found.items() if not name.startswith("_")}


def test_a_backend_defines_names_of_the_reference_with_its_signatures():
    known = matrix_file.load(ROOT / matrix_file.FILE)
    files = {n: PACKAGE / "backend" / f"{n}.py" for n in ("reference", *known.backends)}
    found = {n: signatures(path.read_text(encoding="utf-8")) for n, path in files.items() if path.exists()}
    reference = found.pop("reference")
    assert {"describe", "synchronize", "value_and_grad", "compiled", "lstm_sequence", "StepMixin"} <= set(reference)
    assert set(known.training) <= set(found)
    for name, other in found.items():
        steps = other.pop("StepMixin", None)
        assert other and set(other) <= set(reference)
        assert other == {function: reference[function] for function in other}
        assert (steps is not None) is (name in known.training)
        assert steps is None or steps["train_step"] == reference["StepMixin"]["train_step"]


def test_signatures_tell_a_renamed_argument():
    one, other = signatures("def f(x, jit=None): ...\ndef _g(): ..."), signatures("def f(x, jitted=None): ...")
    assert one == {"f": "x, jit=None"} and one != other
    assert "x, kernel" in signatures("from k3seq.backend.jax_recurrent import affine as affine")["affine"]


def backend_checks(source):
    """Lines that compare something named `backend` (or `backend()`) with text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            named = [ast.unparse(s.func if isinstance(s, ast.Call) else s).split(".")[-1].strip("_") for s in sides]
            literals = [t for s in sides for t in ast.walk(s) if isinstance(t, ast.Constant) and t.value in FRAMEWORKS]
            if "backend" in named and literals:
                yield node.lineno


def test_no_package_but_backend_asks_which_backend_it_is_on():
    files = [p for p in PACKAGE.rglob("*.py") if p.parent.name != "backend"]
    found = [f"{p.relative_to(ROOT)}:{line}" for p in files for line in backend_checks(p.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    "code", ["if backend == 'torch': pass", "x = keras.backend.backend() in ('jax',)", "y = 'jax' != keras.config.backend()"]
)
def test_a_planted_backend_check_is_found(code):
    assert list(backend_checks(code)) == [1]
    assert list(backend_checks(code.replace("backend", "mode"))) == []


# Underscored attributes that k3seq does not define: named tuples' and Python's own, and PyTorch's.
PUBLIC_UNDERSCORES = {"_asdict", "_fields", "_replace", "_exit", "_foreach_norm", "_fused_adam_", "_inductor"}
PRIVATE_TEXTS = {"_inputs_struct", "_keras_history", "_keras_mask", "_trainable_variables", "_remat_mode", "_flatten_layers"}


def private_names(package):
    """Private names of Keras in a tree of files, but for `backend/keras_internals.py`: `file:line name`."""
    files = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(package.rglob("*.py"))}
    defined = set(PUBLIC_UNDERSCORES)
    for tree in files.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    for path, tree in files.items():
        if path == package / "backend" / "keras_internals.py":
            continue
        for node in ast.walk(tree):
            found = ast.unparse(node) if isinstance(node, ast.Import | ast.ImportFrom) else getattr(node, "attr", "")
            text = node.value if isinstance(node, ast.Constant) else None
            if "keras.src" in found or (isinstance(text, str) and (text in PRIVATE_TEXTS or text.startswith("keras.src"))):
                yield f"{path.relative_to(package)}:{node.lineno} {text or found}"
            elif isinstance(node, ast.Attribute) and node.attr[0] == "_" and node.attr[:2] != "__" and node.attr not in defined:
                yield f"{path.relative_to(package)}:{node.lineno} {node.attr}"


def test_only_keras_internals_uses_private_names_of_keras():
    assert list(private_names(PACKAGE)) == []


@pytest.mark.parametrize(
    "code, name",
    [
        ("from keras.src import tree", "from keras.src import tree"),
        ("layer._flatten_layers()", "_flatten_layers"),
        ("getattr(tensor, '_keras_mask', None)", "_keras_mask"),
    ],
)
def test_a_planted_private_name_is_found(tmp_path, code, name):
    (tmp_path / "bad.py").write_text(code)
    assert list(private_names(tmp_path)) == [f"bad.py:1 {name}"]
