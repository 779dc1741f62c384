# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A grid file: data, model, arms, seeds and scores of the experiment, in one or several regimes; and its runs."""

import json
import math
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path

import yaml
from arms import ARMS, masked_table

SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class Latents:
    """The latents table, by the arguments of `prepare latents`; `name` is that command's."""

    name: str = "latents"
    num_tokens: int | None = None
    image_size: int | None = None
    min_votes: int | str = "balanced"
    mirror: bool = False

    @property
    def table(self) -> str:
        return self.name if self.num_tokens is None else f"{self.name}-{self.num_tokens}"


@dataclass(frozen=True)
class Scoring:
    """How samples are made and measured.

    Args:
        steps (`list[int]`): after which samples are scored; the last one ends the training.
        views (`int`): at every step but the last, spread over the objects.
        final_objects, views_per_object (`int`): objects, and views of each, at the last step.
        split (`str`): which objects these are: `heldout`, or `train`, those that all runs train on.
        num_inference_steps (`int`), guidance_scale (`float`): of the sampler.
        resolution (`int`): cells per axis of the extracted meshes.
        batch_size (`int`): views that are sampled together.
        guidance_scales (`list[float]`): tried at the last step, on `extra_views` views of the training split's
            validation objects, which neither train nor count in the curves.
        visible_fractions (`list[float]`): tried at the last step, on `extra_views` views of `split`.
        extra_views (`int`): see above.
        noise_levels (`int`): bins of the diagnostic validation loss.
        loss_rows (`int`): validation rows of that loss.
    """

    steps: list[int]
    views: int
    final_objects: int = 200
    views_per_object: int = 2
    split: str = "heldout"
    num_inference_steps: int = 25
    guidance_scale: float = 2.0
    resolution: int = 64
    batch_size: int = 32
    guidance_scales: list[float] = field(default_factory=list)
    visible_fractions: list[float] = field(default_factory=list)
    extra_views: int = 32
    noise_levels: int = 5
    loss_rows: int = 128

    def __post_init__(self):
        if not self.steps or self.steps != sorted(set(self.steps)) or self.steps[0] < 1:
            raise ValueError(f"`steps` must be rising positive numbers, but is {self.steps}.")
        if self.split not in ("heldout", "train"):
            raise ValueError(f"`split` must be heldout or train, but is {self.split!r}.")

    @property
    def checkpointing_steps(self) -> int:
        return math.gcd(*self.steps)


@dataclass(frozen=True)
class Alignment:
    """How IS-AS is measured at every scored step: with true normals in place of estimated ones, and the image encoder
    that the transformer's images are encoded with.

    Args:
        objects, root (`str`): the list that the dataset was prepared from, and the folder that its paths are relative
            to.
        views (`int`): spread over the objects of the last step, the same ones at all steps.
        num_cameras (`int`): that each shape is rendered from; the paper's is 512.
        resolution (`int`): of these pictures.
    """

    objects: str
    root: str
    views: int = 64
    num_cameras: int = 512
    resolution: int = 518


@dataclass(frozen=True)
class Settings:
    """All that the runs of one regime share.

    Args:
        dataset_name (`str`): folder of a prepared dataset.
        vae, image_encoder (`str`): folders or Hub ids.
        transformer (`dict`): arguments of the model.
        train (`dict`): arguments of `train_vilearn.py`.
        arms (`list[str]`): of `ARMS`.
        ablations (`list[str]`): likewise; they run when all arms have run with all seeds.
        seeds (`list[int]`): of the training.
        latents (`Latents`), scoring (`Scoring`): see there.
        alignment (`Alignment`, *optional*): see there; not measured by default.
    """

    dataset_name: str
    vae: str
    image_encoder: str
    transformer: dict
    train: dict
    arms: list[str]
    seeds: list[int]
    scoring: Scoring
    latents: Latents = field(default_factory=Latents)
    alignment: Alignment | None = None
    ablations: list[str] = field(default_factory=list)

    @classmethod
    def from_dict(cls, values: dict, where: str) -> "Settings":
        _check_keys(values, cls, where)
        unknown = [arm for arm in [*values["arms"], *values.get("ablations", [])] if arm not in ARMS]
        if unknown:
            raise ValueError(f"{where} has unknown arms: {', '.join(unknown)}; there are {', '.join(ARMS)}.")
        for name, found in {"arms": [*values["arms"], *values.get("ablations", [])], "seeds": values["seeds"]}.items():
            if len(set(found)) < len(found):
                raise ValueError(f"{where} has {name} twice: {found}, `ablations` included.")
        schedule = values["train"].get("lr_scheduler", "constant")
        if not schedule.startswith("constant"):
            raise ValueError(
                f"{where} has `lr_scheduler` {schedule}; it must be constant, so that a curve shows at each step what"
                " a run of that many steps gives."
            )
        values = dict(values)
        for name, kind in {"scoring": Scoring, "latents": Latents, "alignment": Alignment}.items():
            if values.get(name) is not None:
                _check_keys(values[name], kind, f"`{name}` of {where}")
                values[name] = kind(**_expand(values[name], "objects", "root"))
        return cls(**_expand(values, "dataset_name", "vae", "image_encoder"))

    @property
    def all_arms(self) -> list[str]:
        """Arms and ablations."""
        return [*self.arms, *self.ablations]

    def shared(self) -> dict:
        """What all runs must have in common to be compared: everything but which arms and seeds there are."""
        return {name: value for name, value in asdict(self).items() if name not in ("arms", "ablations", "seeds")}

    def published(self) -> dict:
        """`shared` without where data and models lay, which says nothing to others."""
        settings = self.shared()
        for place in ("dataset_name", "vae", "image_encoder"):
            settings[place] = Path(settings[place]).name
        for place in ("objects", "root"):
            (settings["alignment"] or {}).pop(place, None)
        return settings


@dataclass(frozen=True)
class Run:
    """One training, and the scores of its samples; all of its state is in `folder`.

    Args:
        settings (`Settings`): of its regime.
        regime, arm (`str`), seed (`int`): name it.
        root (`Path`): of the experiment.
    """

    settings: Settings
    regime: str
    arm: str
    seed: int
    root: Path

    @property
    def name(self) -> str:
        return f"{self.regime}/{self.arm}/seed-{self.seed}"

    @property
    def folder(self) -> Path:
        return self.root / self.name

    @property
    def table(self) -> str:
        """Its latents table."""
        return masked_table(self.settings.latents.table, ARMS[self.arm].masks)

    @property
    def is_trained(self) -> bool:
        # The last file of a pipeline that is saved.
        return (self.folder / "model_index.json").exists()

    def snapshot(self, step: int) -> Path:
        """Folder of the averaged weights after a step."""
        return self.folder / "snapshots" / f"step-{step:08d}"

    def train_arguments(self) -> dict:
        """The file that `train_vilearn.py --config` reads."""
        settings, arm = self.settings, ARMS[self.arm]
        return {
            "transformer": settings.transformer,
            "lr_scheduler": "constant_with_warmup",
            **settings.train,
            **arm.arguments,
            "visibility_encoding": arm.visibility_encoding,
            "seed": self.seed,
            "dataset_name": settings.dataset_name,
            "latents": self.table,
            "vae": settings.vae,
            "image_encoder": settings.image_encoder,
            "resolution": settings.latents.image_size,
            "use_ema": True,
            "max_train_steps": settings.scoring.steps[-1],
            "checkpointing_steps": settings.scoring.checkpointing_steps,
            "validation_steps": settings.scoring.steps[-1],
            "output_dir": str(self.folder),
            "resume_from_checkpoint": "latest",
        }


def read_grid(path: Path) -> dict[str, Settings]:
    """The settings of each regime of a grid file: its top level, with what `regimes` changes, mapping by mapping.

    Raises:
        ValueError: the file has an unknown key, arm or value, or two tables of latents of one name.
    """
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    regimes = values.pop("regimes", {"base": {}})
    grid = {
        name: Settings.from_dict(_merge(values, changes or {}), f"{path}, regime {name}")
        for name, changes in regimes.items()
    }
    tables = {}
    for name, settings in grid.items():
        table = (settings.dataset_name, settings.latents.table)
        other, latents = tables.setdefault(table, (name, settings.latents))
        if latents != settings.latents:
            raise ValueError(
                f"{path}: the regimes {other} and {name} want other latents of one name, {table[1]}; give those of"
                " one of them another `name`."
            )
    return grid


def check_kept(grid: dict[str, Settings], root: Path) -> dict:
    """The settings that the runs in `root` were started with, by regime; as `Settings.shared`.

    Raises:
        ValueError: a regime of the grid has others.
    """
    path = root / SETTINGS_FILE
    kept = json.loads(path.read_text()) if path.exists() else {}
    for name, settings in grid.items():
        if kept.get(name, settings.shared()) != settings.shared() and (root / name).exists():
            raise ValueError(
                f"{root} holds runs of regime {name} with other settings than the grid's; choose another"
                " `--output_dir`, or another name for the regime. Arms and seeds may be added."
            )
    return kept


def list_runs(grid: dict[str, Settings], root: Path) -> list[Run]:
    """All runs: every arm of every regime with the first seed, then with the next one; then the ablations likewise."""
    runs = [
        Run(settings, regime, arm, seed, root)
        for regime, settings in grid.items()
        for seed in settings.seeds
        for arm in settings.all_arms
    ]
    return sorted(runs, key=lambda run: (run.arm in run.settings.ablations, run.settings.seeds.index(run.seed)))


def _merge(values: dict, changes: dict) -> dict:
    merged = dict(values)
    for name, value in changes.items():
        old = values.get(name)
        merged[name] = _merge(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return merged


def _check_keys(values: dict, kind: type, where: str) -> None:
    unknown = sorted(set(values) - {one.name for one in fields(kind)})
    if unknown:
        raise ValueError(f"{where} has unknown keys: {', '.join(unknown)}.")
    needed = {one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING}
    if missing := sorted(needed - set(values)):
        raise ValueError(f"{where} lacks {', '.join(missing)}.")


def _expand(values: dict, *names: str) -> dict:
    """In the paths of these names, `~` is the user's home."""
    homely = {name: values[name] for name in names if values.get(name, "").startswith("~")}
    return values | {name: str(Path(path).expanduser()) for name, path in homely.items()}
