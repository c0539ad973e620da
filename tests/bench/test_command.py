"""`k3seq bench` end to end on PyTorch: a tiny suite with its native loop and one with a fault; and what it refuses."""

import csv
import json
import platform
from dataclasses import replace

import pytest

from bench.fakes import row
from k3seq import cli
from k3seq.bench import Report, problems, suites
from k3seq.commands import bench
from k3seq.errors import DataError, UsageError
from k3seq.report.record import plain
from k3seq.runtime import matrix

pytestmark = pytest.mark.once
TINY = dict(vocabulary=40, embed_dim=8, units=8, source=6, target=5)


def tiny(backends, jits):
    """k3seq, the native loop, that with a wrong weight, and one that `only` leaves out."""
    rows = problems.lstm_training("tiny", backends, jits, padded=(True,), batch=8)
    ours, native = (next(row for row in rows if row.implementation == implementation) for implementation in ("k3seq", "plain"))
    return [
        [
            ours,
            native,
            replace(native, implementation="planted", maker="bench.planted:train"),
            replace(native, implementation="unasked"),
        ]
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def result(folder):
    """One run, compared with an older one in which k3seq's row took no time at all."""
    if matrix.installed("torch") is None:
        pytest.skip("backend torch is not installed")
    old = Report("tiny", [row((1e-9, 1e-9), problem="tiny padded", backend="torch")]).to_json()
    old["rows"][0]["key"] = "tiny padded | train | k3seq | torch | no jit"
    (folder / "old.json").write_text(json.dumps({"result": plain(old)}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(problems.SIZES, "tiny", TINY)
        patch.setitem(suites.SUITES, "tiny", tiny)
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("K3SEQ_KEEP_MEMORY", raising=False)
        files = {name: str(folder / f"out.{name}") for name in ("csv", "html")}
        options = dict(only=["| k3seq |", "| plain |", "planted"], rounds=2, steps=2, against=str(folder / "old.json"))
        return bench.bench(suite="tiny", backends=["torch"], **options, **files)


def of(result, implementation):
    [found] = [one for one in result["rows"] if one["implementation"] == implementation]
    return found


def test_every_row_is_measured_in_its_own_process_with_all_figures(result):
    for one in result["rows"]:
        assert one["status"] == "measured" and len(one["rounds"]) == len(one["cpu_rounds"]) == 2 and one["steps"] == 2
        for name in ("imported", "built", "first", "median", "cpu", "base", "peak", "tokens_per_second"):
            assert one[name] > 0, name
        assert one["about"]["backend"] == "torch" and one["about"]["version"] and one["about"]["devices"]
        assert one["about"]["memory_kept"] is (platform.libc_ver()[0] == "glibc")
    assert len({one["about"]["pid"] for one in result["rows"]}) == 3
    assert result["machine"]["cores"] >= 1 and result["seconds"] > 0


def test_a_peer_with_a_wrong_weight_is_marked_and_the_exit_code_stays_0(result):
    assert [of(result, implementation)["parity"] for implementation in ("k3seq", "plain", "planted")] == [
        "equal",
        "equal",
        "differs",
    ]
    assert of(result, "planted")["parity_note"].startswith("losses differ by")
    assert result["exit_code"] == 0
    assert of(result, "k3seq")["losses"] != of(result, "planted")["losses"]


def test_what_changed_against_an_older_run_is_reported(result):
    verdicts = {change["key"]: change["verdict"] for change in result["changes"]}
    assert verdicts["tiny padded | train | k3seq | torch | no jit"] == "slower"
    assert sorted(verdicts.values()) == ["new", "new", "slower"]


def test_csv_page_and_json_hold_the_run(result, folder):
    lines = list(csv.DictReader((folder / "out.csv").read_text().splitlines()))
    assert [line["implementation"] for line in lines] == ["k3seq", "plain", "planted"]
    page = (folder / "out.html").read_text()
    assert "planted torch" in page and "<svg" in page and "Against the older run" in page
    again = json.loads(json.dumps(plain(result), allow_nan=False))
    assert [one["key"] for one in again["rows"]] == [one["key"] for one in result["rows"]]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(target="a:b", suite="quick"), "Expected a target or --suite. Received: a:b and quick"),
        (dict(suite="fast"), "Expected a suite out of quick"),
        (dict(rounds=0), "Expected --rounds of at least 1. Received: 0"),
        (dict(steps=0), "Expected --steps of at least 1. Received: 0"),
        (dict(seconds=0.0), "Expected --seconds above 0. Received: 0.0"),
        (dict(seconds=float("nan")), "Expected --seconds above 0. Received: nan"),
        (dict(seconds=float("inf")), "Expected --seconds above 0. Received: inf"),
        (dict(timeout=0), "Expected --timeout above 0. Received: 0"),
        (dict(jits="nope"), "Expected --jit out of matrix, first, jit, no jit. Received: nope"),
        (dict(target="a:b", batch_size=0), "Expected --batch-size of at least 1. Received: 0"),
        (dict(target="model"), "Expected package.module:factory. Received: model"),
        (dict(target="a:b", kind="fly"), "Expected --kind out of train, decode, layer. Received: fly"),
        (dict(target="a:b", inputs="{"), "Expected JSON for --inputs. Received: {"),
        (dict(backends=["cntk"]), "cntk"),
        (dict(jits="jit", backends=["torch"]), "Expected rows with 'jit' on torch. Received: none"),
        (dict(suite="train", only=["lstm-v5000"]), "Expected rows with 'lstm-v5000' on jax, tensorflow, torch. Received: none"),
        (dict(target="a:b", labels="["), "Expected JSON for --labels. Received: ["),
        (dict(csv="no/such/folder/a.csv"), "Expected a file that can be written for --csv"),
        (dict(html="."), "Expected a file that can be written for --html. Received: ."),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_wrong_usage_is_refused_before_anything_is_measured(options, message):
    with pytest.raises(UsageError) as error:
        bench.bench(**options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "target, message",
    [
        ("json:dumps", "Expected json:dumps to need no arguments. Received: missing a required argument: 'obj'"),
        ("sys:exit", "Expected sys:exit to return a Keras layer or model. Received: it ended the process"),
        ("os:getcwd", "Expected os:getcwd to return a Keras layer or model. Received: str"),
        (":x", "Expected package.module:name of an object that can be imported. Received: :x (Empty module name)"),
        ("nowhere:y", "Expected package.module:name of an object that can be imported. Received: nowhere:y (No module named"),
    ],
)
@pytest.mark.parametrize("inputs", [[], ["--inputs", '{"shape": [2, 3]}']], ids=["", "inputs"])
def test_a_target_that_is_no_factory_is_one_line_and_nothing_is_measured(here, capsys, monkeypatch, target, message, inputs):
    monkeypatch.setattr(bench.benchmark, "run_benchmark", lambda *_, **__: pytest.fail("measured"))
    assert cli.main(["bench", target, "--backends", "torch", *inputs]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"k3seq: {message}") and error.count("\n") == 1


@pytest.mark.parametrize("content", ["no json", "[]", '{"result": {}}', '{"result": {"rows": [{"key": 1}]}}'])
def test_a_file_that_is_no_older_run_is_refused(content, tmp_path):
    path = tmp_path / "old.json"
    path.write_text(content)
    with pytest.raises(DataError, match="Expected the JSON of k3seq bench"):
        bench.bench(suite="quick", against=str(path))
