"""The file of known divergences and the page that is made from it."""

import dataclasses
import subprocess
import sys

import pytest
import yaml

from k3seq.commands.divergences import write_page
from k3seq.errors import DataError
from k3seq.parity import divergences
from k3seq.parity.divergences import known
from k3seq.runtime import matrix

pytestmark = pytest.mark.once


def test_the_page_is_up_to_date(root):
    page = (root / "docs" / "divergences.md").read_text(encoding="utf-8")
    entries = divergences.load()
    assert page == divergences.markdown(entries), f"run: {divergences.page.COMMAND}"
    assert page != divergences.markdown([dataclasses.replace(entries[0], cause="Another."), *entries[1:]])


def test_the_page_contains_every_entry(tmp_path, capsys):
    write_page(tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    for entry in divergences.load():
        assert all(text in page for text in (f'id="{entry.id}"', f"(#{entry.id})", entry.title, entry.symptom, entry.answer))


def test_backends_are_names_of_the_matrix():
    assert {name for entry in divergences.load() for name in entry.backends} <= set(matrix.DEFAULT_BACKENDS)


def changed(tmp_path, change):
    content = yaml.safe_load(known.FILE.read_text(encoding="utf-8"))
    change(content["divergences"])
    (tmp_path / "known.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return known.load(tmp_path / "known.yml")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda entries: entries[0].pop("cause"), "embedding-under-adam: Expected .*Received: cause"),
        (lambda entries: entries[0].update(extra=1), "Received: extra"),
        (lambda entries: entries[0].update(answer=""), "Received: answer"),
        (lambda entries: entries[0].update(kind="bug"), "Expected a kind out of fault, difference, trap. Received: bug"),
        (lambda entries: entries.append(entries[0]), "Expected each id once. Received: embedding-under-adam again"),
    ],
)
def test_a_wrong_entry_is_refused_by_name(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        changed(tmp_path, change)


def test_an_entry_may_have_its_own_versions(tmp_path):
    entries = changed(tmp_path, lambda entries: entries[0].update(seen_with={"keras": "4.0"}))
    assert entries[0].seen_with == {"keras": "4.0"} != entries[1].seen_with
    assert "With keras 4.0." in divergences.markdown([*entries[1:], entries[0]])


def test_reading_the_file_imports_no_keras():
    code = "import sys; import k3seq.parity.divergences as d; d.load(); print({'keras', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
