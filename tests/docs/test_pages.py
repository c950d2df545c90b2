"""Every command and snippet of the README and the documentation is run, or parsed and listed."""

from __future__ import annotations

import argparse
import json
import re
import runpy
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from commands import execute_in_process
from conftest import drawn_figures
from documentation import ROOT, Block, blocks, commands, inline_commands, read_pages
from iwlora.cli import main, parse
from iwlora.compare.plan.recipe import load_plan
from iwlora.design.recipe import design_from, load_design
from iwlora.tasks.corpora import entailment, sentiment
from iwlora.training.model.backbone import BUILTIN
from iwlora.training.recipe import build, load
from runs import as_foreign

PAGES = read_pages()

# Commands of iwlora that are parsed but not run, by how they begin, with the reason.
PARSED = {
    "train recipes/quickstart.yaml task.name=glue/rte": "needs GLUE",
    "measure --model FOLDER": "needs a model of the reader's own",
    "tasks show pictures/": "needs images of the reader's own",
    "codes pictures/": "needs images of the reader's own",
    "codes --vq vqgan/": "tests/image_tokens/test_vq_model.py has a model",
    "train source.yaml": "trains the model above",
    "export runs/source": "exports the run above",
    "compare source.yaml": "compares methods on the model above",
    "train pictures/": "needs images and a model of the reader's own",
    "init pictures/": "needs images and a model of the reader's own",
    "generate runs/digits": "generates with the run above",
    "train recipes/images/transfer.yaml": "trains its source model first, for minutes",
    "train images.yaml": "needs images and a model of the reader's own",
    "predict runs/images": "predicts with the run above",
    "export runs/images": "exports the run above",
    "compare study/advice/": "takes most of an hour, and needs the study's package",
    "advise --model builtin/minilm --task builtin/sentiment --params": "tests/advice has limits",
    "compare recipes/compare/study-": "the five studies take hours and need GLUE",
    "compare recipes/compare/images.yaml": "takes an hour, and needs the small model",
    "design recipes/design/": "takes hours; tests/design has a small search",
    "train runs/design-": "trains the result of a search, which is not here",
    "compare runs/study-": "compares the studies, which are not here",
    "report runs/study": "reports the studies, which are not here",
    "export runs/a --to pushed/ --push": "uploads; tests/cli/test_push.py has a hub",
}
# Programs whose commands are parsed but not run.
PROGRAMS = {
    "torchrun": "several GPUs or machines",
    "accelerate": "several GPUs or machines",
    "make": "installs packages; each target is tried by the whole check",
    "pip": "installs packages",
    "python3": "makes an environment",
    ".": "enters an environment",
    "git": "copies the repository",
    "python": "benchmarks and stress tests of minutes to hours; tests/stress runs short ones",
}
# Python blocks that are compiled but not run, by their page and what they contain.
COMPILED = {
    ("docs/compose.md", "iwlora.compose"): "needs runs; tests/compose does all of it",
    ("docs/export.md", "BACKBONE"): "loads a placeholder; the exported adapter is loaded below",
    ("docs/generative-transfer.md", "maskgit"): "needs released files, which no test has",
    ("docs/methods.md", "bert-base-uncased"): "needs the hub",
    ("docs/methods.md", "proxy_rows"): "needs runs; benchmarks/design_proxies.py does it",
    ("docs/penalty.md", "penalty.recording"): "goes on from the reader's loop",
    ("docs/penalty.md", "trainer.add_callback"): "goes on from the reader's Trainer",
    ("docs/own-method.md", "norm_tuning"): "tests/methods/test_own_method.py installs and runs it",
    ("docs/own-method.md", "Norm tuning"): "tests/methods/test_own_method.py installs and runs it",
}
# What makes a real command small; the built-in model and task are tiny ones of the same names.
SMALL = ["task.max_train=16", "task.max_validation=8", "train.epochs=1", "train.max_length=16"]
SMALL += ["train.precision=fp32"]


def starts_with(command: Sequence[str], prefixes: dict[str, str]) -> str | None:
    """The reason of the first prefix that the command begins with."""
    text = " ".join(command)
    return next((reason for prefix, reason in prefixes.items() if text.startswith(prefix)), None)


# Parsing ---------------------------------------------------------------------------------------


def parse_iwlora(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse with the real parser, and the recipe and its overrides with the real schema."""
    for word in arguments:
        assert not word.startswith("recipes/") or (ROOT / word).is_file(), f"{word} does not exist"
    parsed = parse(arguments)
    recipe = getattr(parsed, "recipe", None)
    if recipe and recipe.startswith("recipes/design/"):
        load_design(ROOT / recipe, parsed.overrides)
    elif recipe and recipe.startswith("recipes/"):
        load(ROOT / recipe, parsed.overrides)
    sources = getattr(parsed, "sources", [])
    if sources and sources[0].startswith("recipes/"):
        load_plan(ROOT / sources[0], sources[1:])
    return parsed


def parse_make(arguments: Sequence[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in arguments:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"no target {target}"


def parse_pip(arguments: Sequence[str]) -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert arguments[0] == "install"
    for extra in re.findall(r"\[([\w,]+)\]", " ".join(arguments)):
        assert set(extra.split(",")) <= set(extras["optional-dependencies"]), extra


class Parsed(Exception):
    """The script's parser has accepted its arguments."""


def parse_python(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The script exists, and its own parser accepts the arguments."""
    if arguments[:2] == ["-m", "pytest"]:
        assert all((ROOT / path).exists() for path in arguments[2:] if not path.startswith("-"))
        return
    script = ROOT / arguments[0]
    assert script.is_file(), f"{script} does not exist"
    parse_known_args = argparse.ArgumentParser.parse_known_args

    def parse_some(parser: argparse.ArgumentParser, *given: Any) -> NoReturn:
        parse_known_args(parser, *given)
        raise Parsed

    def parse_all(parser: argparse.ArgumentParser, *given: Any) -> NoReturn:
        _, unknown = parse_known_args(parser, *given)
        raise SystemExit(f"unknown: {unknown}") if unknown else Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", parse_some)
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_all)
        patch.setattr(sys, "argv", [str(script), *arguments[1:]])
        patch.syspath_prepend(str(script.parent))
        with pytest.raises(Parsed):
            runpy.run_path(str(script), run_name="__main__")


def parse_launcher(program: str, arguments: Sequence[str]) -> None:
    """The launcher's own parser accepts it, and iwlora's what follows ``-m iwlora``."""
    if program == "torchrun":
        from torch.distributed.run import get_args_parser

        launched = get_args_parser().parse_args(arguments)
    else:
        from accelerate.commands.launch import launch_command_parser

        assert arguments[0] == "launch"
        launched = launch_command_parser().parse_args(arguments[1:])
    assert launched.module
    assert launched.training_script == "iwlora"
    parse_iwlora(launched.training_script_args)


def parse_command(command: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse any command of a page; raises or exits where it is wrong."""
    program, *arguments = [
        word for number, word in enumerate(command) if number or not re.match(r"[A-Z_]+=", word)
    ]
    if program == "iwlora":
        parse_iwlora(arguments)
        return
    assert program in PROGRAMS, f"{program}: add a parser and a reason to this file"
    if program == "make":
        parse_make(arguments)
    elif program == "pip":
        parse_pip(arguments)
    elif program == "python":
        parse_python(arguments, monkeypatch)
    elif program in ("torchrun", "accelerate"):
        parse_launcher(program, arguments)


SH = [(block.page, command) for block in blocks(PAGES, "sh") for command in commands(block)]


@pytest.mark.quick
def test_every_command_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(SH) > 40
    for page, command in SH:
        try:
            parse_command(command, monkeypatch)
        except (SystemExit, Exception) as error:
            pytest.fail(f"{page}: {' '.join(command)}: {error}")


@pytest.mark.quick
def test_commands_within_sentences_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """They may leave out what the sentence is not about, so only names and options are checked."""
    found = inline_commands(PAGES)
    assert len(found) > 10
    for page, (_, *arguments) in found:
        if arguments[0] == "COMMAND":
            continue
        two = arguments[0] == "tasks" and arguments[1:2] in (["show"], ["average"])
        with pytest.raises(SystemExit) as stopped:
            parse([*arguments[: 1 + two], "--help"])
        assert stopped.value.code == 0, f"{page}: iwlora {' '.join(arguments)}"
        options = re.findall("--[a-z-]+", " ".join(arguments))
        assert set(options) <= set(re.findall("--[a-z-]+", capsys.readouterr().out)), page


@pytest.mark.quick
@pytest.mark.parametrize(
    "wrong",
    [
        "iwlora measure --modle builtin/minilm --out x.json",
        "iwlora train recipes/absent.yaml --out runs/a",
        "iwlora train recipes/quickstart.yaml train.lrate=1 --out runs/a",
        "iwlora compare recipes/compare/quickstart.yaml seed=[1] --out runs/a",
        "make dmo",
        "pip install 'iwlora[absent]'",
        "python benchmarks/absent.py",
        "python benchmarks/budgets.py --bdgets 3",
        "torchrun --nproc 4 -m iwlora train recipe.yaml --ot runs/a",
        "unknown-program",
    ],
)
def test_a_wrong_command_is_noticed(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = commands(Block("page", "sh", f"{wrong}  # comment\n"))
    with pytest.raises((SystemExit, Exception)):
        parse_command(command, monkeypatch)


@pytest.mark.quick
def test_blocks_have_a_language_that_is_tested() -> None:
    for block in blocks(PAGES):
        assert block.language in ("sh", "python", "yaml", "toml", ""), block
        if not block.language:
            hidden = re.search(r"^(iwlora|python|make|pip|torchrun) ", block.text, re.MULTILINE)
            assert not hidden, f"{block.page}: mark this block as sh"


@pytest.mark.quick
@pytest.mark.parametrize("block", blocks(PAGES, "yaml"), ids=lambda block: block.page)
def test_a_recipe_parses(block: Block, tmp_path: Path) -> None:
    fields = yaml.safe_load(block.text)
    if "methods" in fields:
        file = tmp_path / "comparison.yaml"
        file.write_text(block.text, encoding="utf-8")
        assert load_plan(file, []).seeds
    elif "design" in fields:
        assert design_from(fields).stages
    else:
        defaults = {"model": "builtin/minilm", "task": "builtin/entailment", "method": "lora"}
        build({**defaults, **fields})


@pytest.mark.quick
@pytest.mark.parametrize("block", blocks(PAGES, "toml"), ids=lambda block: block.page)
def test_toml_parses(block: Block) -> None:
    assert pytest.importorskip("tomllib", reason="Python 3.11").loads(block.text)


# Running ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages' commands read."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    small = {"model": "builtin/minilm", "task": {"name": "builtin/entailment"}}
    for name, method in (("a", "lora"), ("b", "iw-lora"), ("recipe", "lora")):
        recipe = yaml.safe_dump({**small, "method": {"name": method, "rank": 4}})
        (folder / f"{name}.yaml").write_text(recipe, encoding="utf-8")
    for name in ("sentences.csv", "rows.csv"):
        (folder / name).write_text("text\nThe meal was not dreadful.\n", encoding="utf-8")
    reviews = "".join(f"it is {'good' if n % 2 else 'bad'} {n},{n % 2}\n" for n in range(40))
    for name in ("reviews.csv", "a.csv", "b.csv"):
        (folder / name).write_text(f"text,label\n{reviews}", encoding="utf-8")
    labeled = "The meal was dreadful.,negative\nThe meal was good.,positive\n"
    (folder / "labeled.csv").write_text(f"text,label\n{labeled}", encoding="utf-8")
    (folder / "new.csv").write_text("text\nit is good\n", encoding="utf-8")
    scores = "".join(f"{m},t,{s},{0.5 + 0.01 * s}\n" for m in ("lora", "other") for s in range(3))
    (folder / "scores.csv").write_text(f"method,task,seed,score\n{scores}", encoding="utf-8")
    return folder


@pytest.fixture
def tiny_builtin(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in model and task are tiny, and runs of a comparison stay in this process."""
    monkeypatch.setitem(BUILTIN, "builtin/minilm", ("iwlora", str(tiny_bert), "tiny/bert"))
    for task in (entailment, sentiment):
        others = task.generate.__defaults__[4:]
        monkeypatch.setattr(task.generate, "__defaults__", (0, 60, 12, 12, *others))
    execute_in_process(monkeypatch)


def shrink(arguments: list[str]) -> list[str]:
    """The same command with few rows, seeds and methods."""
    if arguments[0] == "compare" and arguments[1].endswith(".yaml"):
        one_recipe = not arguments[2].endswith(".yaml")
        return [*arguments, *SMALL, "seeds=[0,1]", *(["methods=[lora,iw-lora]"] * one_recipe)]
    if arguments[:2] == ["compare", "reviews.csv"]:
        return [*arguments, *SMALL, "seeds=[0]"]
    if arguments[0] in ("train", "measure", "advise") and "--compare" not in arguments:
        return [*arguments, *SMALL]
    return arguments


# What a page reads, and where the README's commands made it.
MADE = {
    "runs/a": "runs/a",
    "runs/b": "runs/a",
    "runs/c": "runs/a",
    "runs/d": "runs/a",
    "runs/mine": "runs/a",
    "runs/theirs": "runs/a",
    "runs/few": "runs/a",
    "runs/eight-seeds": "runs/eight-seeds",
    "runs/quickstart": "runs/eight-seeds",
    "runs/study": "runs/eight-seeds",
    "runs/rte": "runs/eight-seeds",
    "runs/mrpc": "runs/eight-seeds",
    "advice.yaml": "advice.yaml",
    "importance.json": "importance.json",
    "other.json": "importance.json",
}
# Copies that must differ from what they are compared with: {copy: (old text, new text)}.
CHANGED = {
    "runs/mrpc": ("builtin/entailment", "glue/mrpc"),
    "runs/theirs": ('"label": "iw-lora"', '"label": "theirs"'),
    "runs/few": ("max_train: 16", "max_train: 8"),
}


def supply(arguments: Sequence[str], folder: Path, readme: Path) -> None:
    """Copy what the command reads, and an earlier page made, into the folder of this page."""
    options = ("--out", "--to", "--output")
    written = {word for option, word in pairwise(arguments) if option in options}
    named = {word.rpartition("=")[2] for word in arguments}  # also the path in NAME=PATH
    for word in named & set(MADE) - written:
        source, target = readme / MADE[word], folder / word
        if target.exists():
            continue
        target.parent.mkdir(exist_ok=True)
        if source.is_file():
            shutil.copyfile(source, target)
            continue
        shutil.copytree(source, target)
        if word in CHANGED:
            for file in (*target.rglob("*.json"), *target.rglob("*.yaml")):
                text = file.read_text(encoding="utf-8").replace(*CHANGED[word])
                # Their digests belong to the text before.
                text = re.sub(r',\n *"digest": "[0-9a-f]*"', "", text)
                file.write_text(text, encoding="utf-8")
            for result in target.rglob("result.json"):
                as_foreign(result.parent)


def run_page(page: str, folder: Path, readme: Path, seen: set[str]) -> int:
    """Run the commands of a page in order, but none twice; return how many were run."""
    count = 0
    for program, *arguments in [command for name, command in SH if name == page]:
        if program != "iwlora" or starts_with(arguments, PARSED) or str(arguments) in seen:
            continue
        supply(arguments, folder, readme)
        assert main(shrink(arguments)) == 0, f"{page}: iwlora {' '.join(arguments)}"
        seen.add(str(arguments))
        count += 1
    return count


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_builtin")
def test_the_readme_and_then_every_page_run(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README comes first: other pages read the runs that it made."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    seen: set[str] = set()
    pages = sorted({page for page, command in SH if command[0] == "iwlora"}, key="README.md".__ne__)
    for page in pages:
        folder = tmp_path / Path(page).stem
        shutil.copytree(inputs, folder)
        monkeypatch.chdir(folder)
        with drawn_figures() if page == "README.md" else nullcontext():
            ran = run_page(page, folder, tmp_path / "README", seen)
        if page == "README.md":
            assert ran == 9
            assert (folder / "runs/eight-seeds/report.html").is_file()
            model = BUILTIN["builtin/minilm"][1]
            backbone = AutoModelForSequenceClassification.from_pretrained(model)
            adapter = PeftModel.from_pretrained(backbone, folder / "adapter")
            assert adapter.peft_config["default"].r == 8


@pytest.mark.usefixtures("tiny_builtin")
@pytest.mark.parametrize("block", blocks(PAGES, "python"), ids=lambda block: block.page)
def test_python_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = compile(block.text, block.page, "exec")
    if any(page == block.page and text in block.text for page, text in COMPILED):
        return
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    for adapter in tmp_path.glob("*adapter"):
        assert json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"] == 8
