# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""No line of ours unpickles a file, runs text as code, or trusts a repository's code on somebody's behalf."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "training", "pipelines", "benchmarks")
UNPICKLERS = ("pickle", "cPickle", "dill", "joblib", "cloudpickle", "marshal", "shelve")
# Keywords that may only have one value, where they are given.
ONLY = {"weights_only": True, "allow_pickle": False, "trust_remote_code": False, "shell": False}


def find_unsafe_calls(source: str) -> list[str]:
    """What a module calls that could run what a file says, by line."""
    return [
        f"line {node.lineno}: {ast.unparse(node)[:100]}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and _is_unsafe(node)
    ]


def _is_unsafe(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    module, _, function = name.rpartition(".")
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if any(word in given and not _is_constant(given[word], value) for word, value in ONLY.items()):
        return True
    if name == "torch.load":
        return "weights_only" not in given
    if name in ("eval", "exec", "__import__", "os.system", "yaml.load", "yaml.unsafe_load"):
        return True
    # accelerate unpickles the objects that are registered with it
    return module in UNPICKLERS or function == "register_for_checkpointing"


def _is_constant(node: ast.expr, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_unsafe_is_called(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = {str(path.relative_to(ROOT)): find_unsafe_calls(path.read_text()) for path in files}
    assert not {path: calls for path, calls in found.items() if calls}


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "pickle.load(file)",
        "joblib.load(path)",
        "marshal.loads(data)",
        "eval(text)",
        "yaml.load(text)",
        "DiffusionPipeline.from_pretrained(name, trust_remote_code=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=args.trust)",
        "subprocess.run(command, shell=True)",
        "accelerator.register_for_checkpointing(thing)",
    ],
)
def test_the_audit_sees(line):
    assert find_unsafe_calls(f"def f():\n    return {line}")


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "np.load(path, allow_pickle=False)",
        "torch.compile(model)",
        "model.eval()",
        "yaml.safe_load(text)",
        "load_file(path)",
    ],
)
def test_the_audit_lets_pass(line):
    assert not find_unsafe_calls(line)
