"""Times whole models of the published sizes in PyTorch on an accelerator, on random weights: the other side of
`orfeas-gpu-node bench gpu`, which prints lines of the same form.

usage: device.py [--model v2-0|v2-mini] [--dtype f16|bf16] [--reps N]

As the published pipeline does by default: guidance as a batch of two, and a dense grid in chunks of 8,000 points.
"""

import argparse
import json
import statistics
import time

import networks
import torch
from restatement import dit_weights, flat, matrix, scale, vae_weights

HEADS = 16
# Double blocks, single blocks, latent tokens.
MODELS = {"v2-0": (16, 32, 3072), "v2-mini": (8, 16, 512)}
ENCODER_WIDTH, ENCODER_HEADS, ENCODER_LAYERS, PICTURE, PATCH = 1536, 24, 40, 518, 14
DECODER_LAYERS = 16
STEPS, WHOLE_RESOLUTION = 50, 256


def encoder_weights(width=ENCODER_WIDTH, hidden=4096):
    def layer():
        projections = {name: matrix(width, width) for name in ("query", "key", "value")}
        return {
            "norm1": scale(width),
            "attention": {"attention": projections, "output": {"dense": matrix(width, width)}},
            "layer_scale1": {"lambda1": 1 + 0.2 * torch.randn(width)},
            "norm2": scale(width),
            "mlp": {"weights_in": matrix(2 * hidden, width), "weights_out": matrix(width, hidden)},
            "layer_scale2": {"lambda1": 1 + 0.2 * torch.randn(width)},
        }

    pixels = 3 * PATCH**2
    projection = {"weight": torch.randn(width, 3, PATCH, PATCH) / pixels**0.5, "bias": 0.1 * torch.randn(width)}
    tree = {
        "embeddings": {
            "patch_embeddings": {"projection": projection},
            "cls_token": torch.randn(1, 1, width) / width**0.5,
            "position_embeddings": torch.randn(1, 1 + (PICTURE // PATCH) ** 2, width) / width**0.5,
        },
        "encoder": {"layer": {str(i): layer() for i in range(ENCODER_LAYERS)}},
        "layernorm": scale(width),
    }
    return dict(flat(tree))


def seconds(work):
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def report(model, dtype, reps):
    depth, single, latents = MODELS[model]
    before = torch.cuda.memory_allocated()
    with torch.device("cuda"):
        dit = dit_weights(1024, HEADS, depth, single, context=ENCODER_WIDTH)
        vae = vae_weights(1024, HEADS, DECODER_LAYERS)
        encoder = encoder_weights()
        x = torch.randn(1, latents, 64).to(dtype)
        pixels = torch.randn(1, 3, PICTURE, PICTURE).to(dtype)
    dit, vae, encoder = ({key: value.to(dtype) for key, value in w.items()} for w in (dit, vae, encoder))
    torch.cuda.empty_cache()
    weights = torch.cuda.memory_allocated() - before
    torch.cuda.reset_peak_memory_stats()

    encode = lambda: networks.encode(encoder, pixels, ENCODER_HEADS, ENCODER_LAYERS)
    step = lambda x, context: networks.guided_step(dit, x, context, HEADS, depth, single, length=1 / STEPS)
    decode = lambda x: networks.decode(vae, x, HEADS, DECODER_LAYERS)
    grid = lambda tokens, resolution: networks.dense_grid(vae, tokens, HEADS, resolution)

    def whole():
        context, y = encode(), x
        for _ in range(STEPS):
            y = step(y, context)
        grid(decode(y), WHOLE_RESOLUTION)

    context, tokens = encode(), decode(x)
    encoding = seconds(encode)
    step(x, context)
    steps = [seconds(lambda: step(x, context)) for _ in range(reps)]
    tokens_seconds = seconds(lambda: decode(x))
    grid(tokens, 64)
    decoding = [[resolution, seconds(lambda: grid(tokens, resolution))] for resolution in (256, 384)]
    total = seconds(whole)
    return {
        "workload": "gpu",
        "side": "pytorch",
        "device": torch.cuda.get_device_name(),
        "model": model,
        "kind": {torch.float16: "Half", torch.bfloat16: "BFloat16"}[dtype],
        "encode_seconds": encoding,
        "step_seconds": statistics.median(steps),
        "tokens_seconds": tokens_seconds,
        "decode_seconds": decoding,
        "whole_seconds": total,
        "weights_bytes": weights,
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--dtype", choices=["f16", "bf16"], action="append")
    parser.add_argument("--reps", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(1)
    dtypes = {"f16": torch.float16, "bf16": torch.bfloat16}
    with torch.inference_mode():
        for model in options.model or MODELS:
            for name in options.dtype or dtypes:
                print(json.dumps(report(model, dtypes[name], options.reps)), flush=True)
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
