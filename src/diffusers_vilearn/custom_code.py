# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The package's own source as files of a repository, for those who have diffusers but not this package.

`DiffusionPipeline.from_pretrained(repo, trust_remote_code=True)` imports the pipeline from `pipeline.py` in the root
and a component from one file in its folder. Root files may import each other; diffusers copies those that
`pipeline.py` names. So every module that the pipeline needs becomes a file in the root, and each model the file of its
component.
"""

import ast
import json
from dataclasses import dataclass
from pathlib import Path

from .files import PIPELINE_INDEX, saved_index, write_atomically

PACKAGE = Path(__file__).parent
PIPELINE = "pipelines.pipeline_vilearn"
COMPONENTS = {"vae": "models.autoencoder_vecset", "transformer": "models.transformer_vilearn"}
# What stays in the package, cards and checks of foreign files, and the class of diffusers that stands in for it.
STAND_INS = {
    "models.modeling_utils": {"ViLearnModelMixin": "from diffusers import ModelMixin"},
    "pipelines.pipeline_loading_utils": {"ViLearnDiffusionPipeline": "from diffusers import DiffusionPipeline"},
}
# Files in the root share a module cache with those of other repositories, hence the prefix.
_PREFIX = "vilearn_"
_NOTE = "# Written by pipelines/build_hub_files.py from src/diffusers_vilearn/{path}; edit that file instead.\n"
_COPIED = "\n\n# diffusers copies only the files that this one names.\n"


@dataclass(frozen=True)
class _Import:
    """One `from .module import names` of the package, with its module named from the package's root."""

    node: ast.ImportFrom
    module: str


def custom_code_files() -> dict[str, str]:
    """Path in the repository -> source, of the pipeline, what it imports, and the models.

    Raises:
        ValueError: If the source imports in a way that files of a repository cannot.
    """
    files = {
        f"{folder}/{_stem(module)}.py": _rewrite(module, allow_siblings=False) for folder, module in COMPONENTS.items()
    }
    pending, done = [PIPELINE], set()
    while pending:
        module = pending.pop()
        if module not in done:
            done.add(module)
            files[_root_name(module) + ".py"] = _rewrite(module)
            pending.extend(one.module for one in _imports(module) if _is_sibling(one.module))
    unnamed = done - {PIPELINE} - {one.module for one in _imports(PIPELINE)}
    if unnamed:
        lines = [f"from .{_root_name(module)} import __doc__ as _  # noqa: E402, F401\n" for module in sorted(unnamed)]
        files["pipeline.py"] += _COPIED + "".join(lines)
    return files


def add_custom_code(folder: str | Path) -> None:
    """Put the source beside the weights of a saved pipeline or model, and let its index or configuration name it.

    Args:
        folder (`str` or `Path`): written by `save_pretrained`. A pipeline then needs `trust_remote_code=True`, with
            this package as well as without; a model only where `AutoModel` loads it.
    """
    folder = Path(folder)
    if saved_index(folder).name == PIPELINE_INDEX:
        _add_to_pipeline(folder)
    else:
        _add_to_model(folder)


def _add_to_pipeline(folder: Path) -> None:
    index = json.loads((folder / PIPELINE_INDEX).read_text(encoding="utf-8"))
    for name, source in custom_code_files().items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_atomically(folder / name, source.encode())
    if isinstance(index["_class_name"], str):
        index["_class_name"] = ["pipeline", index["_class_name"]]
    for component, module in COMPONENTS.items():
        index[component] = [_stem(module), index[component][1]]
    write_atomically(folder / PIPELINE_INDEX, (json.dumps(index, indent=2) + "\n").encode())


def _add_to_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for path, source in custom_code_files().items():
        component, _, name = path.partition("/")
        if component in COMPONENTS and f"class {config['_class_name']}(" in source:
            write_atomically(folder / name, source.encode())
            config["auto_map"] = {"AutoModel": f"{_stem(COMPONENTS[component])}.{config['_class_name']}"}
    write_atomically(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())


def _stem(module: str) -> str:
    return module.rpartition(".")[2]


def _root_name(module: str) -> str:
    return "pipeline" if module == PIPELINE else _PREFIX + _stem(module)


def _is_sibling(module: str) -> bool:
    return module not in STAND_INS and module not in COMPONENTS.values()


def _source(module: str) -> str:
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    if not path.is_file():
        raise ValueError(f"`{module}` is no file of the package; import names from the module that defines them.")
    return path.read_text(encoding="utf-8")


def _imports(module: str) -> list[_Import]:
    """The imports of other modules of the package, wherever in the file they stand."""
    found = []
    for node in ast.walk(ast.parse(_source(module))):
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.module is None:
                raise ValueError(f"`{module}` has `{ast.unparse(node)}`, which diffusers does not follow.")
            folders = module.split(".")[: -node.level]
            found.append(_Import(node, ".".join([*folders, node.module])))
        elif _names_package(node):
            raise ValueError(f"`{module}` has `{ast.unparse(node)}`; imports of the package must be relative.")
    return found


def _names_package(node: ast.AST) -> bool:
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    return any(name.split(".")[0] == PACKAGE.name for name in names)


def _rewrite(module: str, allow_siblings: bool = True) -> str:
    """The source of a module with its imports of the package turned into those of the repository."""
    lines = _source(module).splitlines(keepends=True)
    for one in sorted(_imports(module), key=lambda one: one.node.lineno, reverse=True):
        if _is_sibling(one.module) and not allow_siblings:
            raise ValueError(f"`{module}` must be a file of its own, but it imports `{one.module}`.")
        statement = " " * one.node.col_offset + _repository_import(module, one) + "\n"
        lines[one.node.lineno - 1 : one.node.end_lineno] = [statement]
    # The note goes below the two lines of copyright and licence.
    return "".join([*lines[:2], _NOTE.format(path=module.replace(".", "/") + ".py"), *lines[2:]])


def _repository_import(module: str, one: _Import) -> str:
    names = ", ".join(ast.unparse(alias) for alias in one.node.names)
    if one.module in STAND_INS:
        if names not in STAND_INS[one.module]:
            raise ValueError(f"`{module}` imports {names} from `{one.module}`, which stays in the package.")
        return f"{STAND_INS[one.module][names]} as {names}"
    if one.module in COMPONENTS.values():
        _check_only_hints(module, {alias.asname or alias.name for alias in one.node.names})
        aliases = ", ".join(f"ModelMixin as {alias.asname or alias.name}" for alias in one.node.names)
        return f"from diffusers import {aliases}  # a type hint; the class comes from the component's own folder"
    return f"from .{_root_name(one.module)} import {names}"


def _check_only_hints(module: str, names: set[str]) -> None:
    """Raise unless `names` occur in annotations only: another copy of a component's class would be another class."""
    tree = ast.parse(_source(module))
    hints = [getattr(node, field, None) for node in ast.walk(tree) for field in ("annotation", "returns")]
    inside = {id(part) for hint in hints if hint is not None for part in ast.walk(hint)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in names and id(node) not in inside:
            raise ValueError(f"`{module}` uses `{node.id}` in line {node.lineno}; it may only be a type hint there.")
