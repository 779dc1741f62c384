# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The command line: `diffusers-vilearn generate chair.png -o chair.glb`, `diffusers-vilearn prepare shapes …`."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import trimesh
import typer
from huggingface_hub.utils import validate_repo_id
from PIL import Image

from .cards import read_facts
from .conversion import VAE_SOURCES, convert_vae_checkpoint
from .errors import named_if_absent, refusals_in_one_line
from .files import PIPELINE_INDEX, what_lies_in
from .geometry.mesh import EXPORT_TYPES, export_mesh
from .hub import ensure_card, publish_checkpoint
from .pipelines import ViLearnImageTo3DPipeline
from .pipelines.preview import render_preview

app = typer.Typer(
    name="diffusers-vilearn",
    help="ViLearn: an image in, a mesh out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DEFAULT_CHECKPOINT = "checkpoints/vilearn-tiny"
MESH_SUFFIXES = tuple(f".{kind}" for kind in EXPORT_TYPES)
PREVIEW_SUFFIXES = (".jpg", ".png", ".webp")


def _print_version(wanted: bool):
    if wanted:
        typer.echo(version("diffusers-vilearn"))
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
):
    pass


@app.command()
def generate(
    image: Annotated[Path, typer.Argument(help="Picture of the object, RGBA with a transparent background.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Mesh to write: .glb, .ply, .obj or .stl.")],
    checkpoint: Annotated[str, typer.Option(help="Folder or Hub id of the pipeline.")] = DEFAULT_CHECKPOINT,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 25,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    guidance_scale: Annotated[
        float, typer.Option(min=0, help="How closely to follow the image; 1 is no guidance.")
    ] = 3.0,
    num_tokens: Annotated[int | None, typer.Option(min=1, help="Shape tokens; the checkpoint's if not given.")] = None,
    visible_fraction: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of tokens declared visible; the checkpoint's if not given."),
    ] = None,
    resolution: Annotated[int, typer.Option(min=8, help="Cells of the extraction grid per side.")] = 256,
    preview: Annotated[
        Path | None, typer.Option(help="Picture to write: the input beside four rendered views of the mesh.")
    ] = None,
    remove_background: Annotated[
        bool, typer.Option("--remove-background", help="Cut the object out of an opaque photograph with rembg.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="Torch device; CUDA if there is one, else the CPU, if not given.")
    ] = None,
):
    """Generate a mesh from a picture of an object."""
    _check_suffix("--output", output, MESH_SUFFIXES)
    if preview is not None:
        _check_suffix("--preview", preview, PREVIEW_SUFFIXES)
    picture = _load_picture(image, remove_background)
    pipe = _load_pipeline(checkpoint, device)
    mesh = _generate_mesh(
        pipe,
        picture,
        num_inference_steps=steps,
        num_tokens=num_tokens,
        guidance_scale=guidance_scale,
        visible_fraction=visible_fraction,
        resolution=resolution,
        generator=torch.Generator().manual_seed(seed),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    export_mesh(mesh, output)
    typer.echo(f"{output}: {len(mesh.vertices)} vertices, {len(mesh.faces)} faces")
    if preview is not None:
        preview.parent.mkdir(parents=True, exist_ok=True)
        render_preview(pipe.image_processor.preprocess(picture, size=512)[0], mesh).save(preview)
        typer.echo(f"{preview}")


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def prepare(context: typer.Context):
    """Turn meshes into a visibility-annotated dataset: scan, shapes, latents, publish."""
    from .data.command import main as prepare_main

    prepare_main(context.args)


@app.command()
def publish(
    folder: Annotated[
        Path, typer.Argument(help="Saved pipeline, model or LoRA layers, as training scripts write them.")
    ],
    repo_id: Annotated[
        str | None, typer.Argument(help="user/name on the Hub; without it nothing is uploaded.")
    ] = None,
    facts: Annotated[
        Path | None, typer.Option(help="JSON: data, licences, training command; what only you know.")
    ] = None,
    evaluation: Annotated[Path | None, typer.Option(help="Folder written by training/evaluate.py.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Of the card: base, small, large or tiny, vae for a lone VAE, or a path.")
    ] = None,
    self_contained: Annotated[
        bool,
        typer.Option("--self-contained", help="Put the code beside the weights; then needs trust_remote_code."),
    ] = False,
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private, if it is not there yet.")
    ] = False,
):
    """Upload a checkpoint with its model card; run it again to resume.

    A README.md that is there is kept unless --facts, --evaluation or --template ask for a new one.
    """
    if repo_id is None and (self_contained or private):
        option = "--self-contained" if self_contained else "--private"
        raise ValueError(f"{option} needs a repository id, user/name on the Hub, after the folder.")
    known = read_facts(facts) if facts is not None else None
    options = {"evaluation": evaluation, "template": template}
    if repo_id is None:
        written = ensure_card(folder, known, **options)
        typer.echo(f"{folder / 'README.md'}: {'written' if written else 'kept'}")
    else:
        typer.echo(
            publish_checkpoint(folder, repo_id, known, self_contained=self_contained, private=private, **options)
        )


convert = typer.Typer(help="Convert other projects' checkpoints.", no_args_is_help=True)
app.add_typer(convert, name="convert")


@convert.command("vae")
def convert_vae(
    checkpoint: Annotated[Path, typer.Argument(help="safetensors or torch file, or a folder in diffusers' layout.")],
    output: Annotated[Path, typer.Argument(help="Folder to write the `VecSetVAE` to.")],
    source: Annotated[str, typer.Option(help=f"Whose it is: {', '.join(VAE_SOURCES)}.")],
    heads_encoder: Annotated[int | None, typer.Option(min=1, help="If not as published.")] = None,
    heads_decoder: Annotated[int | None, typer.Option(min=1, help="If not as published.")] = None,
):
    """Convert the VAE of Dora, TripoSG, Hunyuan3D or Step1X-3D."""
    heads = {"heads_encoder": heads_encoder, "heads_decoder": heads_decoder}
    given = {name: value for name, value in heads.items() if value is not None}
    vae = convert_vae_checkpoint(checkpoint, source, **given)
    vae.save_pretrained(output)
    typer.echo(f"{output}: {sum(parameter.numel() for parameter in vae.parameters()) / 1e6:.1f}M parameters")


def _check_suffix(option: str, path: Path, suffixes: tuple[str, ...]):
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{option} must end in one of {', '.join(suffixes)}, but is {str(path)!r}.")


def _load_picture(path: Path, remove_background: bool) -> Image.Image:
    if not path.is_file():
        raise ValueError(f"IMAGE must be the path of a picture, but there is no file {str(path)!r}.")
    try:
        picture = Image.open(path)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{str(path)!r} is too large a picture: {error}") from error
    if not remove_background:
        return picture
    try:
        import rembg
    except ImportError as error:
        raise ValueError("--remove-background needs rembg: pip install 'diffusers-vilearn[rembg]'") from error
    return rembg.remove(picture)


def _load_pipeline(checkpoint: str, device: str | None) -> ViLearnImageTo3DPipeline:
    if checkpoint == DEFAULT_CHECKPOINT and not Path(checkpoint).is_dir():
        raise ValueError(f"there is no folder {checkpoint!r} here; name the pipeline to use with --checkpoint.")
    pipe = _load_from_folder(checkpoint) if Path(checkpoint).is_dir() else _load_from_hub(checkpoint)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return pipe.to(device)
    except (RuntimeError, AssertionError) as error:  # both are how torch refuses a device
        raise ValueError(f"--device {device!r} cannot be used: {error}") from error


def _load_from_folder(folder: str) -> ViLearnImageTo3DPipeline:
    if not Path(folder, PIPELINE_INDEX).is_file():
        raise ValueError(f"--checkpoint needs a pipeline, but {what_lies_in(Path(folder), (PIPELINE_INDEX,))}")
    return ViLearnImageTo3DPipeline.from_pretrained(folder)


def _load_from_hub(repo_id: str) -> ViLearnImageTo3DPipeline:
    # Where the index comes, it is a file of the pipeline that does not, which diffusers names.
    with named_if_absent("pipeline", repo_id):
        validate_repo_id(repo_id)
        ViLearnImageTo3DPipeline.load_config(repo_id)
    return ViLearnImageTo3DPipeline.from_pretrained(repo_id)


def _generate_mesh(pipe: ViLearnImageTo3DPipeline, *args, **kwargs) -> trimesh.Trimesh:
    try:
        return pipe(*args, **kwargs).meshes[0]
    except ValueError as error:
        # what comes after is an argument that the command does not have
        raise ValueError(str(error).partition(" `output_type=")[0]) from error


def main():
    """The console script: bad input ends in one line and exit code 1, not in a traceback."""
    with refusals_in_one_line():
        app()


if __name__ == "__main__":
    main()
