"""The commands in README and docs are ones that the command line takes, and the README's Python lines run."""

import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from onebit.leaderboards import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("examples/**/*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^ *```[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
#: `onebit ...` itself, and behind torchrun or environment variables.
_COMMAND = re.compile(r"^\s*(?:\$ )?(?:\w+=\S+ )*(?:torchrun .*?-m |python -m )?onebit (.+)")


def commands(page: Path) -> list[str]:
    """The `onebit` commands in a page's blocks, continued lines joined, without comments."""
    text = page.read_text(encoding="utf-8")
    lines = "\n".join(_BLOCK.findall(text)).replace("\\\n", " ").splitlines()
    return [m[1] for line in lines if (m := _COMMAND.match(line)) and "..." not in line]


FOUND = [(page, command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(("page", "command"), FOUND, ids=lambda v: v.name if isinstance(v, Path) else None)
def test_commands_parse(page, command, capsys):
    words = shlex.split(command, comments=True)
    if {"--help", "--version"} & set(words):
        with pytest.raises(SystemExit, match=r"^0$"):
            cli.parser().parse_args(words)
    else:
        cli.parser().parse_args(words)


#: The examples below every verb's options.
EXAMPLES = [
    line.strip()
    for verb in cli.parser()._subparsers._group_actions[0].choices.values()
    for line in (verb.epilog or "").splitlines()[1:]
]


def _words(example: str) -> list[str]:
    """The words of an example's `onebit` command: two spaces part it from what explains it."""
    words = shlex.split(example.split("  ")[0].split(" | ")[-1].split(" > ")[0])
    return words[words.index("onebit") + 1 :]


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_every_help_parse(example):
    cli.parser().parse_args(_words(example))


@pytest.mark.parametrize("example", [e for e in EXAMPLES if "onebit train" in e and "--config" not in e])
def test_training_options_of_the_examples_fit_their_recipes(example, tmp_path, monkeypatch):
    from onebit.commons import mini
    from onebit.commons.datasets import get_dataset
    from onebit.commons.task import Job
    from onebit.leaderboards.boards import runner
    from onebit.leaderboards.commands.options import training_options

    args = cli.parser().parse_args(_words(example))
    options = training_options(args, args.task)
    options.pop("pretrained", None)  # a file that is not here
    if args.dataset == "coco:labels.json":
        monkeypatch.setenv("ONEBIT_CACHE", str(tmp_path / "cache"))
        list(mini.write(tmp_path, ["mini-coco"]))
        labels = tmp_path / "mini-coco" / "annotations" / "instances_val2017.json"
        args.dataset = f"coco:{labels},{tmp_path / 'mini-coco' / 'val2017'}"
    if args.dataset.startswith(("reid:", "folder:")):
        monkeypatch.setenv("ONEBIT_CACHE", str(tmp_path / "cache"))
        for label, at in itertools.product("abcd", range(3)):
            (tmp_path / "own" / label).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "own" / label / f"{at}.png")
        args.dataset = f"{args.dataset.partition(':')[0]}:{tmp_path / 'own'}"
    dataset = get_dataset(args.dataset, args.task)
    job = Job(dataset.name, args.backbone, args.recipe or dataset.recipe, 0, tmp_path, tmp_path, cfg_options=options)
    folder = None
    if dataset.kind == "drawn":
        list(mini.write(tmp_path, [dataset.name]))
        folder = dataset.find(tmp_path)
    found = runner(args.task).config_of(job, folder)
    assert found is not None or (args.task == "classification" and folder is None)
    if args.epochs:
        assert found[1] == args.epochs


def test_commands_are_found():
    assert len(FOUND) > 60
    assert len(EXAMPLES) > 60
    assert {page.name for page, _ in FOUND} >= {"README.md", "tour.md", "detection.md", "packed.md"}


def test_readme_is_short_and_its_python_lines_run(tmp_path):
    assert len(README.splitlines()) <= 120
    (block,) = [
        b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if b.startswith("import onebit, torch")
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "memory_bits" in done.stdout


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_quickstart_runs(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("ONEBIT_DATA", None)
    script = ROOT / "examples" / "quickstart.py"
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "dcp_nas_s, strict: 36.2 Mbit, 286 M operations" in done.stdout
    assert "dcp_nas_s, dcp-nas: 4.2 Mbit, 99 M operations" in done.stdout
    written = (tmp_path / "leaderboards/records/cifar10").glob("*.json")
    assert {path.name.split("--")[1] for path in written} == {"resnet18_w8", "resnet18_w8_reactnet"}
