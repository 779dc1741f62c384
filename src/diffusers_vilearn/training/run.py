# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A run of a trainer: its accelerator, its optimiser, and how it stops: asked to, or at a loss that is no number."""

import argparse
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    DistributedType,
    FullyShardedDataParallelPlugin,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    ProjectConfiguration,
    set_seed,
)
from diffusers.optimization import get_scheduler
from transformers.integrations import unset_hf_deepspeed_config

from ..files import append_json_line, drop_json_lines, locked, read_json_lines
from .checkpoints import list_checkpoints, tidy_checkpoints

# What processes wait for each other: one writes checkpoints, copies data sets, uploads.
PATIENCE = timedelta(hours=3)
# Seconds in which the readers of a run that was killed, who hold what it held, notice that.
ORPHANS = 15
# Graphs of one module: training, validation and sampling have one each for every number of shape and image tokens.
MAX_GRAPHS = 64
OPTIONS_LOG, UNREADABLE_LOG = "options.jsonl", "unreadable_rows.jsonl"
LOGS = ("train_log.jsonl", "validation_log.jsonl", "samples/scores.jsonl", OPTIONS_LOG, UNREADABLE_LOG)
# Arguments that change where and how a run is watched and kept, but not its weights; the token is nobody's business.
WATCHING = {
    *("config", "output_dir", "cache_dir", "dataloader_num_workers", "max_unreadable_rows", "logging_dir"),
    *("checkpointing_steps", "checkpoints_total_limit", "resume_from_checkpoint", "logging_steps", "report_to"),
    *("push_to_hub", "hub_model_id", "hub_token"),
    *("gradient_checkpointing", "offload_ema", "foreach_ema", "torch_compile"),
    *("validation_steps", "validation_split", "validation_inference_steps", "validation_guidance_scale"),
    *("validation_resolution", "num_validation_images"),
}


@contextmanager
def started(args: argparse.Namespace) -> Iterator[Accelerator]:
    """The accelerator of a run, which is seeded and holds its output folder until the end of the block.

    Raises:
        ValueError: another run writes to the output folder.
    """
    accelerator = make_accelerator(args)
    set_seed(args.seed)
    with locked(Path(args.output_dir), ORPHANS) if accelerator.is_main_process else nullcontext():
        if accelerator.is_main_process:
            tidy_checkpoints(args.output_dir)
        accelerator.wait_for_everyone()
        yield accelerator
        # The main process may still be writing, and the group ends for all at once.
        accelerator.wait_for_everyone()
    accelerator.end_training()


def make_accelerator(args: argparse.Namespace) -> Accelerator:
    """The accelerator that the common arguments describe."""
    output_dir = Path(args.output_dir)
    # accelerate itself would only leave it out.
    if args.report_to not in ("none", "all", *(tracker.value for tracker in get_available_trackers())):
        raise ImportError(f"`--report_to {args.report_to}` needs `pip install {args.report_to}`.")
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        # as a plugin: of the environment, where DeepSpeed's configuration has "auto", accelerate would read a number
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=args.gradient_accumulation_steps),
        log_with=None if args.report_to == "none" else args.report_to,
        project_config=ProjectConfiguration(project_dir=output_dir, logging_dir=output_dir / args.logging_dir),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        config = accelerator.state.deepspeed_plugin.deepspeed_config
        # DeepSpeed would read it off the loader, which is not prepared: stages change it.
        config["train_micro_batch_size_per_gpu"] = args.train_batch_size
        # DeepSpeed clips by itself, and for "auto" accelerate would write 1.
        clipping = config.get("gradient_clipping", "auto")
        if clipping not in ("auto", args.max_grad_norm):
            raise ValueError(
                f"`gradient_clipping` of DeepSpeed's configuration is {clipping}, but `--max_grad_norm` is"
                f" {args.max_grad_norm}; give the same, or `auto` there."
            )
        config["gradient_clipping"] = args.max_grad_norm
        # transformers would shard the image encoder, which is not trained.
        unset_hf_deepspeed_config()
    if accelerator.distributed_type == DistributedType.FSDP:
        keep_inputs_exact(accelerator.state.fsdp_plugin)
    if args.allow_tf32:
        torch.backends.cuda.matmul.allow_tf32 = True
    return accelerator


def keep_inputs_exact(plugin: FullyShardedDataParallelPlugin) -> None:
    """Let FSDP cast weights alone: it would round timesteps and rotary angles, too, which models keep in float32."""
    policy = plugin.mixed_precision_policy
    if policy is not None:
        # FSDP1 has a second one, for the whole model.
        casts = {"cast_forward_inputs", "cast_root_forward_inputs"} & {field.name for field in fields(policy)}
        plugin.mixed_precision_policy = replace(policy, **dict.fromkeys(casts, False))


def compile_model(compile_it: Callable, accelerator: Accelerator) -> None:
    """Compile a model for all stages of a run.

    Args:
        compile_it (`Callable`): its `compile` or `compile_repeated_blocks`.
        accelerator: of the run; hooks of FSDP break the graph, which is whole otherwise.
    """
    torch._dynamo.config.recompile_limit = MAX_GRAPHS
    compile_it(fullgraph=accelerator.distributed_type != DistributedType.FSDP)


def make_optimizer(args: argparse.Namespace, parameters, accelerator: Accelerator, max_train_steps: int):
    """AdamW and its learning-rate schedule over `max_train_steps`, not yet prepared."""
    learning_rate = args.learning_rate
    if args.scale_lr:
        learning_rate *= args.gradient_accumulation_steps * args.train_batch_size * accelerator.num_processes
    optimizer_class = torch.optim.AdamW
    if args.use_8bit_adam:
        try:
            from bitsandbytes.optim import AdamW8bit as optimizer_class
        except ImportError as error:
            raise ImportError("`--use_8bit_adam` needs bitsandbytes: `pip install bitsandbytes`.") from error
    optimizer = optimizer_class(
        parameters,
        lr=learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        weight_decay=args.adam_weight_decay,
        eps=args.adam_epsilon,
    )
    # A prepared scheduler makes one step a process.
    lr_scheduler = get_scheduler(
        args.lr_scheduler,
        optimizer,
        num_warmup_steps=args.lr_warmup_steps * accelerator.num_processes,
        num_training_steps=max_train_steps * accelerator.num_processes,
        num_cycles=args.lr_num_cycles,
        power=args.lr_power,
    )
    return optimizer, lr_scheduler


def start_trackers(accelerator: Accelerator, name: str, args: argparse.Namespace) -> None:
    """Start what `--report_to` names; it learns all arguments but the token of the Hub."""
    if accelerator.log_with:
        values = {key: value for key, value in vars(args).items() if key != "hub_token" and value is not None}
        simple = (bool, int, float, str)
        config = {key: value if isinstance(value, simple) else str(value) for key, value in values.items()}
        # wandb would write into the working folder, and into that of temporary files where it finds none.
        logging_dir = Path(accelerator.logging_dir)
        logging_dir.mkdir(parents=True, exist_ok=True)
        accelerator.init_trackers(name, config=config, init_kwargs={"wandb": {"dir": str(logging_dir)}})


class Interruption:
    """SIGTERM (preemption) and SIGINT as a request to end the run after the step at hand; twice is at once.

    A context: the handlers that were there before come back at its end.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None

    def __enter__(self) -> "Interruption":
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_):
        self._restore()

    def _note(self, number, _frame):
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self):
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class TrainingStopped(RuntimeError):
    """The run cannot go on; the message says why, and from where it can be resumed."""


def check_step(
    accelerator: Accelerator,
    interruption: Interruption,
    values: list[torch.Tensor],
    uids: list[str],
    step: int,
    output_dir: str | Path,
) -> bool:
    """Before the optimiser changes the weights: whether any process was asked to end.

    Args:
        values (`list[torch.Tensor]`): losses of this process and the gradient's norm, scalars that must be finite.
        uids (`list[str]`): rows of this step in this process.
        step (`int`): number of the step at hand.
        output_dir (`str` or `Path`): of the run.

    Raises:
        TrainingStopped: in the processes where a value is not finite; it names their rows.
    """
    values = torch.stack([_whole(value.detach()).float() for value in values])
    if not torch.isfinite(values).all():
        raise TrainingStopped(
            f"The loss or its gradient is not finite at step {step} (losses, gradient norm: {values.tolist()})."
            f" Its rows: {', '.join(uids)}. {describe_last_checkpoint(output_dir)}"
        )
    stop = torch.tensor(float(interruption.signal is not None), device=accelerator.device)
    return bool(accelerator.reduce(stop, "sum") if accelerator.num_processes > 1 else stop)


def _whole(value: torch.Tensor) -> torch.Tensor:
    """FSDP2 gives the gradient's norm as a `DTensor`."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def describe_last_checkpoint(output_dir: str | Path) -> str:
    """A sentence that names the last whole checkpoint."""
    checkpoints = list_checkpoints(output_dir)
    if not checkpoints:
        return "There is no checkpoint yet."
    return f"The last good checkpoint is {checkpoints[-1]}."


def log_validation(accelerator: Accelerator, output_dir: str | Path, step: int, results: dict[str, float]) -> None:
    """Tell the trackers, the user and `validation_log.jsonl`, if there is anything to tell."""
    if not results:
        return
    accelerator.log({f"validation/{name}": value for name, value in results.items()}, step=step)
    accelerator.print(f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in results.items()))
    if accelerator.is_main_process:
        append_json_line(Path(output_dir) / "validation_log.jsonl", {"step": step, **results})


def note_options(args: argparse.Namespace, accelerator: Accelerator, step: int) -> None:
    """Write what the run goes on with after `step` steps to `options.jsonl`, and tell the user what was otherwise
    before; by the main process alone."""
    path = Path(args.output_dir) / OPTIONS_LOG
    if step == 0:
        path.unlink(missing_ok=True)
    options = {name: value for name, value in vars(args).items() if name not in WATCHING}
    # As they read once written.
    options = json.loads(json.dumps(options, default=str))
    known = read_json_lines(path)
    before = known[-1] if known else options
    changed = [name for name, value in options.items() if before.get(name) != value]
    if changed:
        words = (f"`--{name} {options[name]}`, was {before.get(name)}" for name in changed)
        accelerator.print(f"The run goes on with other options than before: {'; '.join(words)}.")
    if changed or not known:
        append_json_line(path, {"step": step, **options})


def rewind_logs(output_dir: str | Path, step: int) -> None:
    """Forget what the logs say of steps after `step`, which a resumed run makes again."""
    for name in LOGS:
        drop_json_lines(Path(output_dir) / name, lambda record: record["step"] <= step)
