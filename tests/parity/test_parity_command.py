"""`k3seq parity` on Keras' own train step, which is wrong for embeddings under Adam on TensorFlow, and on wrong options."""

import contextlib
import io

import pytest

from k3seq.cli import main
from k3seq.commands import parity
from k3seq.errors import UsageError
from k3seq.parity import Report, Row
from k3seq.parity.verdicts import VERDICTS
from k3seq.runtime.matrix import installed

pytestmark = pytest.mark.once

NAMES = ("jax", "tensorflow", "torch")
PAIRS = {("jax", "tensorflow"): "differs", ("jax", "torch"): "equal", ("tensorflow", "torch"): "differs"}


@pytest.fixture(scope="module")
def found(workers, matrix):
    """What the command returned and printed."""
    if not all(installed(name, matrix) for name in NAMES):
        pytest.skip("only three backends show which one is wrong")

    @contextlib.contextmanager
    def shared(names):
        yield workers

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr("k3seq.parity.Pool", shared)
        results = parity.parity(["parity.sample_layers:stock"], NAMES, ["gradients", "sgd", "adam", "slots"])
    return results, printed.getvalue()


def verdicts(found, check):
    return {tuple(row["pair"]): row["verdict"] for row in found[0]["rows"] if row["check"] == check}


@pytest.mark.parametrize("check", ["adam", "slots"])
def test_repeated_ids_under_adam_differ_on_tensorflow(found, check):
    assert found[0]["exit_code"] == 1 and verdicts(found, check) == PAIRS


@pytest.mark.parametrize("check", ["adam", "slots"])
def test_the_float64_reference_names_tensorflow(found, check):
    for row in found[0]["rows"]:
        if row["check"] == check and row["verdict"] == "differs":
            assert row["judge"].startswith("float64 reference (jax): tensorflow differs by ") and "agree" in row["judge"]
            assert "tokens" in row["where"]


@pytest.mark.parametrize("check", ["gradients", "sgd"])
def test_gradients_and_sgd_are_equal(found, check):
    assert verdicts(found, check) == dict.fromkeys(PAIRS, "equal")


def test_the_command_prints_each_difference_once_and_a_table(found):
    printed = found[1].splitlines()
    lines = [line for line in printed if line.startswith("stock, adam, ")]
    assert len(lines) == 2 and all("float64 reference (jax): tensorflow differs" in line for line in lines)
    assert any(line.split("┃")[1:-1] and "gradients" in line and "slots" in line for line in printed)
    assert printed[-1].startswith("12 comparisons, 4 not equal, ")


def test_output_that_is_no_terminal_has_no_escapes(found):
    assert "\x1b" not in found[1]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--backends", "torch"], "Expected at least two backends to compare. Received: torch"),
        (["--inputs", "3"], "--inputs: Expected inputs as"),
        (["--inputs", "{"], "Expected JSON for --inputs"),
        (["--inputs", '{"shape": "x"}'], "--inputs: Expected inputs as"),
        (["--inputs", '{"shape": [-1]}'], "--inputs: Expected shape as"),
        (["--inputs", '{"shape": [2], "dtype": "nope"}'], "--inputs: Expected dtype as"),
        (["--html", "nowhere/page.html"], "Expected a file that can be written for --html"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(capsys, options, message):
    assert main(["parity", "keras.layers:Dense", *options]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_misspelt_target_is_one_line_and_exit_code_2(capsys, workers, monkeypatch):
    monkeypatch.setattr("k3seq.parity.Pool", lambda names: contextlib.nullcontext(workers))
    assert main(["parity", "keras.layers:Dens", "--inputs", '{"shape": [2, 5]}']) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "Expected package.module:name" in line and "Received: keras.layers:Dens " in line


def test_fewer_than_two_installed_backends_is_a_usage_error(monkeypatch):
    monkeypatch.setattr("k3seq.runtime.matrix.installed", lambda name, known=None: "1.0" if name == "torch" else None)
    with pytest.raises(UsageError, match="at least two installed backends to compare. Received: torch .install jax with: pip"):
        parity.parity()


def test_every_verdict_has_a_style_and_a_row_is_one_line():
    assert set(parity.STYLES) == set(VERDICTS)
    row = Row("dense", "files", ("jax", "torch"), "differs", 0.25, 0.5, 2e-6, "kernel", "m", "j", dtype="bfloat16")
    assert parity.line(row) == "dense (bfloat16), files, jax to torch: differs by 2.5e-01 (tolerance 2.0e-06) at kernel; m; j"
    assert parity.table([row], "t").row_count == 1 and Report([row]).counts() == "1 differs"
