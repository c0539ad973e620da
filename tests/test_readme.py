"""What README.md says is true: its Python runs, its commands parse, its links lead somewhere."""

import re
import shlex

import pytest
import typer

from k3seq import cli


@pytest.fixture(scope="module")
def readme(root):
    return (root / "README.md").read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text):
    """The `k3seq ...` calls of the shell blocks, as lists of arguments."""
    for block in blocks(text, "sh"):
        for line in block.splitlines():
            for call in line.split("&&"):
                words = shlex.split(call, comments=True)
                if words and words[0].rpartition("/")[2] == "k3seq":
                    yield [word for word in words[1 : words.index("<") if "<" in words else None]]


def test_the_python_example_prints_what_stands_below_it(readme, capsys):
    (code,), (printed,) = blocks(readme, "python"), blocks(readme, "text")
    assert len(code.strip().splitlines()) <= 20
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out == printed


@pytest.mark.once
def test_its_commands_parse(readme):
    found = list(commands(readme))
    assert {words[0] for words in found} >= {"train", "decode", "evaluate", "matrix"}
    group = typer.main.get_command(cli.app)
    for words in found:
        command = group.commands[words[0]]
        command.make_context(words[0], words[1:])  # raises on an unknown option
    with pytest.raises(Exception, match="no-such-option"):
        group.commands["train"].make_context("train", ["--no-such-option", "1"])


@pytest.mark.once
def test_its_links_lead_to_files(readme, root):
    links = re.findall(r"\]\(((?!https?:)[^)#]+)\)", readme)
    assert links and not [link for link in links if not (root / link).exists()]


@pytest.mark.once
def test_the_two_commands_install_with_the_tested_versions(readme, root):
    for name in ("main", "tests"):
        command = readme.split(f"<!-- command: {name} -->")[1].split("```")[1]
        assert "-c constraints.txt" in command and ".venv/bin/k3seq" in command
