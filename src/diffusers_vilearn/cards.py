# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""Cards of checkpoints and datasets, from the templates in `model_cards/` and from what lies in the folder."""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from huggingface_hub import DatasetCardData, EvalResult, ModelCard, ModelCardData
from safetensors import safe_open

from .files import LATENTS_FILE, PIPELINE_INDEX, PREPARATION_FILE, saved_index, write_atomically

_HERE = Path(__file__).parent
# An installed package has the templates inside, a source tree at its top.
TEMPLATES = next(
    folder for folder in (_HERE / "model_cards", _HERE.parents[1] / "model_cards") if (folder / "base.md").is_file()
)
TAGS = ["diffusers-vilearn", "vilearn", "image-to-3d", "mesh"]
# Ids that the Hub knows of licences that meshes come under.
HUB_LICENCES = {
    *("apache-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "cc", "cc0-1.0", "isc", "mit", "odbl", "odc-by"),
    *("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "unknown", "other", "zlib"),
    *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
    *("cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "agpl-3.0", "gpl", "gpl-2.0", "gpl-3.0"),
    *("lgpl", "lgpl-2.1", "lgpl-3.0", "mpl-2.0", "unlicense"),
}
# What a card says of the code that it takes to load the checkpoint.
NEEDS_PACKAGE = "It needs the package diffusers-vilearn: `pip install -e .` in a copy of its repository."
HAS_CODE = (
    "Its code lies beside the weights: `pip install torch diffusers transformers accelerate trimesh libigl`. Read it"
    " before you trust it."
)
# A file of weights, a shard or all, and its variant if it is one.
_WEIGHTS = re.compile(r"(?:diffusion_pytorch_)?model(?:\.([^.]+?))?(?:-\d+-of-\d+)?\.safetensors")
# What loads our classes where their code lies beside the weights.
_LOADERS = {
    "ViLearnImageTo3DPipeline": "DiffusionPipeline",
    "ViLearnTransformer3DModel": "AutoModel",
    "VecSetVAE": "AutoModel",
}
# Types of facts, as an error names them, and what tells them.
_FACT_TYPES = {
    "text": lambda value: isinstance(value, str),
    "a whole number": lambda value: type(value) is int,
    "text or a whole number": lambda value: type(value) in (str, int),
    "a list of texts": lambda value: isinstance(value, list) and all(isinstance(line, str) for line in value),
    'a list of {"path": ..., "caption": ...}': lambda value: isinstance(value, list) and all(map(_is_picture, value)),
}
# What only the publisher knows, and of which type. All may be left out; the card then says so.
FACTS = {
    "title": ("text", "heading of the card"),
    "license": ("text", "of the weights, as the Hub spells it, such as apache-2.0"),
    "base_model": ("text", "Hub id of what was fine-tuned"),
    "datasets": ("a list of texts", "Hub ids of the training data"),
    "data_sources": ("a list of texts", "lines on what it was trained on, with licences"),
    "training": ("a list of texts", "lines on steps, batch, optimiser, hardware, time"),
    "command": ("text", "the training command"),
    "protocol": ("text", "how the figures were measured"),
    "image_encoder": ("text", "which one, and its licence"),
    "min_votes": ("text or a whole number", "votes that made a token visible"),
    "creators": ("text", "Markdown on who made the training meshes"),
    "pictures": ('a list of {"path": ..., "caption": ...}', "both texts, the path one in the folder"),
    "example": ("text", "path in the folder of the picture that the widget shows"),
    "num_heldout": ("a whole number", "objects the figures are measured on"),
    "heldout_sources": ("text", "where those are from"),
}
# Of the templates, those of a lone VAE's card and of all other checkpoints'.
VAE_TEMPLATES = ("vae",)
PIPELINE_TEMPLATES = ("base", "small", "large", "tiny")


def write_model_card(folder: str | Path, template: str | Path, **values) -> Path:
    """Render a template into `README.md` of a checkpoint folder.

    Args:
        folder (`str` or `Path`): the checkpoint.
        template (`str` or `Path`): one of `model_cards/` by its name, or the path of another, which may extend those.
        values: what the template asks for; `license`, `base_model`, `datasets`, `example`, `title`, `metrics` and
            `heldout_sources` go into the front matter.
    """
    return _write(Path(folder), template, _model_card_data(values), values)


def write_checkpoint_card(
    folder: str | Path,
    facts: dict | None = None,
    *,
    evaluation: str | Path | None = None,
    template: str | None = None,
    repo_id: str | None = None,
) -> Path:
    """Write `README.md` of a saved pipeline or model.

    Args:
        folder (`str` or `Path`): written by `save_pretrained`; only configurations and headers are read.
        facts (`dict`, *optional*): see `FACTS`.
        evaluation (`str` or `Path`, *optional*): folder written by `training/evaluate.py`.
        template (`str`, *optional*): base, small, large or tiny, of a lone VAE vae, or the path of another; chosen by
            the model otherwise.
        repo_id (`str`, *optional*): where it will be loaded from; the folder, by its name, otherwise.

    Raises:
        ValueError: If the folder holds no checkpoint, or what is asked for does not fit it.
    """
    folder, facts = Path(folder), checked_facts(facts)
    for path in pictures_of(facts):
        if not leads_inside(path) or not (folder / path).is_file():
            raise ValueError(f"`facts` names the picture {path!r}, which is not in {str(folder)!r}.")
    components = _components(folder)
    values = dict.fromkeys(FACTS) | _facts_of(components) | _figures(evaluation) | facts
    values |= {"repo_id": repo_id or folder.resolve().name, "has_code": _has_code(folder)}
    values["variant"] = _variant_argument(folder)
    if values["image_encoder"] and "image_encoder" in components:
        values["components"]["image_encoder"] += f": {values['image_encoder']}"
    values["title"] = values["title"] or (repo_id or folder.name).rpartition("/")[2]
    return write_model_card(folder, _template_of(components, template), **values)


def read_facts(path: Path) -> dict:
    """`FACTS` from a JSON file.

    Raises:
        ValueError: If it is no JSON, or no such facts.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no readable JSON: {error}") from error
    return checked_facts(facts, repr(str(path)))


def checked_facts(facts: dict | None, source: str = "`facts`") -> dict:
    """A copy of `facts`; none is an empty one.

    Args:
        facts (`dict`, *optional*): see `FACTS`; a value may be None.
        source (`str`): where they are from, for the error.

    Raises:
        ValueError: If they are no dictionary, or one is not in `FACTS` or of another type.
    """
    if facts is None:
        return {}
    if not isinstance(facts, dict):
        raise ValueError(f'{source} must be an object such as {{"license": "mit"}}, but is {facts!r:.50}.')
    unknown = sorted(set(facts) - set(FACTS))
    if unknown:
        raise ValueError(f"{source} has {', '.join(unknown)}; it may have {', '.join(FACTS)}.")
    for name, value in facts.items():
        kind, what = FACTS[name]
        if value is not None and not _FACT_TYPES[kind](value):
            raise ValueError(f"`{name}` in {source} must be {kind} ({what}), but is {value!r:.50}.")
    return dict(facts)


def _is_picture(value) -> bool:
    named = isinstance(value, dict) and set(value) == {"path", "caption"}
    return named and all(isinstance(text, str) for text in value.values())


def pictures_of(facts: dict) -> list[str]:
    """Paths of all pictures that `FACTS` name, the example's among them."""
    return [*(picture["path"] for picture in facts.get("pictures") or []), *filter(None, [facts.get("example")])]


def leads_inside(path: str) -> bool:
    """Whether a path, of a file or in a card, leads to nowhere but below the folder that it starts from."""
    return not urlsplit(path).scheme and not Path(path).is_absolute() and ".." not in Path(path).parts


def _has_code(folder: Path) -> bool:
    """Whether the code lies beside the weights, and the package is not needed; see `add_custom_code`."""
    index = json.loads(saved_index(folder).read_text(encoding="utf-8"))
    return isinstance(index["_class_name"], list) or "auto_map" in index


def write_dataset_card(folder: str | Path, repo_id: str | None = None) -> Path:
    """Write `README.md` of a prepared dataset: its tables and splits, counts, licences, rejects and options.

    Args:
        folder (`str` or `Path`): written by `prepare shapes`.
        repo_id (`str`, *optional*): where it will be loaded from; the folder otherwise.
    """
    from .data.shards import rows_by_split

    folder = Path(folder)
    # `load_dataset` fails on a split without rows.
    tables = {path.name: +rows_by_split(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    tables = {table: splits for table, splits in tables.items() if splits}
    if "shapes" not in tables:
        raise ValueError(f"{folder} has no table `shapes`; `prepare shapes` writes it.")
    creators = defaultdict(set)
    for licence, creator in _counts(folder / "shapes", "licence", "creator"):
        creators[licence].add(creator)
    data = DatasetCardData(
        **_licence_of(creators),
        task_categories=["image-to-3d"],
        tags=["diffusers-vilearn", "3d", "mesh"],
        configs=[
            {
                "config_name": table,
                "data_files": [{"split": split, "path": f"{table}/{split}-*.parquet"} for split in splits],
            }
            for table, splits in tables.items()
        ],
    )
    latents = {table: folder / table / LATENTS_FILE for table in tables}
    values = {
        "repo_id": repo_id or str(folder),
        "rows": tables,
        "sources": {source: count for (source,), count in sorted(_counts(folder / "shapes", "source").items())},
        "creators": {licence: sorted(names) for licence, names in sorted(creators.items())},
        "rejects": sorted(_counts(folder / "rejects", "source", "reason").items()),
        "options": json.loads((folder / PREPARATION_FILE).read_text())["options"],
        "latents": {table: json.loads(file.read_text()) for table, file in latents.items() if file.exists()},
    }
    return _write(folder, "dataset", data, values)


def _licence_of(names: Iterable[str]) -> dict[str, str | list[str]]:
    """What the front matter of a card says of the licences: the Hub refuses ids that it does not know."""
    ids = sorted(name.lower() for name in names)
    if set(ids) <= HUB_LICENCES:
        return {"license": ids}
    return {"license": "other", "license_name": ", ".join(ids)}


def readdress_card(
    folder: str | Path,
    names: Iterable[str],
    repo_id: str,
    *,
    has_code: bool = False,
    loader: str = "from_pretrained",
) -> None:
    """Let the code of a run's card load the checkpoint from where it went.

    Args:
        folder (`str` or `Path`): with the `README.md`.
        names (`Iterable[str]`): that the card may call the checkpoint by.
        repo_id (`str`): to load instead.
        has_code (`bool`): whether the code lies beside the weights, and loading does not need the package.
        loader (`str`): what the code loads it with; `load_lora_weights` of LoRA layers.
    """
    path = Path(folder) / "README.md"
    card = path.read_text(encoding="utf-8")
    for name in names:
        card = card.replace(f'{loader}("{name}"', f'{loader}("{repo_id}"')
        card = card.replace(f"prepare latents --vae {name}`", f"prepare latents --vae {repo_id}`")
    for own, general in _LOADERS.items() if has_code else ():
        loading = f'{own}.from_pretrained("{repo_id}"'
        if loading in card:
            card = card.replace(loading, f'{general}.from_pretrained("{repo_id}", trust_remote_code=True')
            card = card.replace(f"from diffusers_vilearn import {own}\n", f"from diffusers import {general}\n")
            card = card.replace(
                f"from diffusers_vilearn import {own}, ",
                f"from diffusers import {general}\nfrom diffusers_vilearn import ",
            )
            card = card.replace(NEEDS_PACKAGE, HAS_CODE)
    write_atomically(path, card.encode())


def pictures_in(card: Path) -> list[str]:
    """Paths and addresses of the pictures that a card shows, its widget among them."""
    if not card.is_file():
        return []
    shown = re.findall(r"!\[[^\]]*\]\(\s*([^)\s]+)", card.read_text(encoding="utf-8"))
    try:
        widget = ModelCard.load(card, ignore_metadata_errors=True).data.get("widget") or []
    except yaml.YAMLError as error:
        raise ValueError(f"The front matter of {card} is no YAML: {error}") from error
    return [*shown, *(example["src"] for example in widget if "src" in example)]


def _write(folder: Path, template: str | Path, data: ModelCardData | DatasetCardData, values: dict) -> Path:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    source = Path(template) if Path(template).suffix else TEMPLATES / f"{template}.md"
    if not source.is_file():
        names = ", ".join(sorted(path.stem for path in TEMPLATES.glob("*.md")))
        raise ValueError(f"`template` is {str(template)!r}; it may be {names}, or the path of a template.")
    environment = Environment(loader=FileSystemLoader([source.parent, TEMPLATES]), undefined=StrictUndefined)
    environment.globals |= {"NEEDS_PACKAGE": NEEDS_PACKAGE, "HAS_CODE": HAS_CODE}
    text = environment.get_template(source.name).render(card_data=data.to_yaml(), **values)
    path = folder / "README.md"
    write_atomically(path, (text.strip() + "\n").encode())
    return path


def _counts(table: Path, *columns: str) -> dict[tuple, int]:
    """How many rows of a table have each combination of values."""
    from .data.shards import read_parquet

    counts = Counter()
    for file in sorted(table.glob("*.parquet")):
        rows = read_parquet(file, list(columns)).to_pylist()
        counts.update(tuple(row[column] for column in columns) for row in rows)
    return counts


def _components(folder: Path) -> dict[str, tuple[str, dict, int]]:
    """Component -> class name, configuration, number of parameters; a lone model is one component."""
    index = saved_index(folder)
    values = json.loads(index.read_text())
    if index.name == PIPELINE_INDEX:
        entries = {name: value for name, value in values.items() if isinstance(value, list)}
        saved = {
            name: (class_name, folder / name)
            for name, (_, class_name) in entries.items()
            if not name.startswith("_") and class_name is not None
        }
    else:
        class_name = values["_class_name"]
        saved = {"vae" if class_name == "VecSetVAE" else "transformer": (class_name, folder)}
    return {name: (kind, _configuration(path), _count_parameters(path)) for name, (kind, path) in saved.items()}


def _configuration(folder: Path) -> dict:
    for name in ("config.json", "scheduler_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            return json.loads((folder / name).read_text())
    return {}


def _count_parameters(folder: Path) -> int:
    """From the headers of the weights; of several variants, such as fp16, the one with the most."""
    return max(map(_parameters_in, _weights_by_variant(folder).values()), default=0)


def _parameters_in(files: list[Path]) -> int:
    total = 0
    for path in files:
        with safe_open(path, "pt") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
    return total


def _variant_argument(folder: Path) -> str:
    """What loading takes where weights are a variant's alone, such as `, variant="fp16"`; nothing otherwise."""
    for place in (folder, *sorted(folder.iterdir())):
        variants = set(_weights_by_variant(place))
        if variants and None not in variants:
            return f', variant="{min(variants)}"'
    return ""


def _weights_by_variant(folder: Path) -> dict[str | None, list[Path]]:
    """Variant, None for the weights that loading takes by itself -> its files."""
    files = defaultdict(list)
    for path in folder.glob("*.safetensors"):
        if match := _WEIGHTS.fullmatch(path.name):
            files[match.group(1)].append(path)
    return files


def _template_of(components: dict[str, tuple[str, dict, int]], template: str | None = None) -> str:
    """The template that is asked for, if it fits the components, or else theirs."""
    from .models.transformer_vilearn import VILEARN_LARGE, VILEARN_SMALL

    is_vae = list(components) == ["vae"]
    fitting = VAE_TEMPLATES if is_vae else PIPELINE_TEMPLATES
    if template:
        if template not in fitting and not (Path(template).suffix and Path(template).is_file()):
            raise ValueError(
                f"`template` is {str(template)!r}; for {'a lone VAE' if is_vae else 'this checkpoint'} it may be"
                f" {', '.join(fitting)}, or the path of a template."
            )
        return template
    if is_vae:
        return "vae"
    config = components["transformer"][1]
    for name, size in (("small", VILEARN_SMALL), ("large", VILEARN_LARGE)):
        if all(config.get(key) == value for key, value in size.items()):
            return name
    return "base"


def _facts_of(components: dict[str, tuple[str, dict, int]]) -> dict:
    """What the configurations say."""
    vae, transformer = (components.get(name, (None, {}, 0))[1] for name in ("vae", "transformer"))
    models = {name: count for name, (_, _, count) in components.items() if count}
    texts = {name: f"`{kind}`" + _describe(kind, config, count) for name, (kind, config, count) in components.items()}
    return {
        "components": texts,
        "parameters": ", ".join(f"{name.replace('_', ' ')} {count / 1e6:.1f}M" for name, count in models.items()),
        "frame": (transformer or vae).get("frame", "canonical"),
        "visible_fraction": transformer.get("visible_fraction"),
        "point_channels": vae.get("point_channels", 6),
        "image_channels": transformer.get("joint_attention_dim"),
        "needs_sharp_points": vae.get("dual_cross_attention", False),
    }


def _describe(kind: str, config: dict, count: int) -> str:
    size = f", {count / 1e6:.1f}M" if count else ""
    if kind == "VecSetVAE":
        return f"{size}: {config['num_tokens']} tokens x {config['latent_channels']} channels"
    if kind == "ViLearnTransformer3DModel":
        blocks = f"{config['num_layers']} double and {config['num_single_layers']} single blocks"
        return f"{size}: {blocks}, `{config['visibility_encoding']}`"
    return size + (f", shift {config['shift']}" if "shift" in config else "")


def _figures(evaluation: str | Path | None) -> dict:
    """The table of an evaluation, and the means of what was generated."""
    if evaluation is None:
        return {"figures": None, "metrics": {}}
    summary = Path(evaluation) / "summary.json"
    if not summary.is_file():
        raise ValueError(f"`evaluation` is {str(evaluation)!r}; training/evaluate.py wrote no summary.json there.")
    scores = json.loads(summary.read_text())["scores"]
    best = scores.get("generation") or scores.get("reconstruction") or {}
    means = {name: round(value["mean"], 4) for name, value in best.items()}
    return {"figures": summary.with_suffix(".md").read_text().strip(), "metrics": means}


def _model_card_data(values: dict) -> ModelCardData:
    """The front matter: what the Hub shows, searches and runs."""
    results = [
        EvalResult(
            task_type="image-to-3d",
            dataset_type="held-out-objects",
            dataset_name=values.get("heldout_sources") or "held-out objects",
            metric_type=name,
            metric_value=mean,
        )
        for name, mean in (values.get("metrics") or {}).items()
    ]
    example = {"src": values.get("example"), "example_title": "An object on a transparent background"}
    return ModelCardData(
        license=values.get("license"),
        library_name="diffusers",
        pipeline_tag="image-to-3d",
        base_model=values.get("base_model"),
        datasets=values.get("datasets"),
        tags=TAGS,
        widget=[example] if example["src"] else None,
        eval_results=results or None,
        model_name=values["title"] if results else None,
    )
