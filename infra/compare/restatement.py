"""Makes the files of `orfeas-gpu-node bench dit|volume`, and times the same tensors in PyTorch.

usage: restatement.py make dit|volume|shape FILE
       restatement.py time dit|volume FILE --threads N --reps N

`make` draws random weights and inputs of the agreed sizes and writes them with the results; `shape` is a small
decoder whose field is smooth, as a trained one is, for the coarse-to-fine decoder. `time` prints one JSON line.
"""

import argparse
import json
import resource
import statistics
import time

import networks
import torch
from safetensors.torch import load_file, save_file

HEADS, DEPTH, SINGLE = 8, 4, 8
LAYERS, RESOLUTION = 8, 47


def matrix(out, into, bias=True):
    weights = {"weight": torch.randn(out, into) / into**0.5}
    return weights | {"bias": 0.1 * torch.randn(out)} if bias else weights


def scale(size, bias=True):
    weights = {"weight": 1 + 0.2 * torch.randn(size)}
    return weights | {"bias": 0.1 * torch.randn(size)} if bias else weights


def flat(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def dit_weights(width=512, heads=HEADS, depth=DEPTH, single=SINGLE, channels=64, context=1024, ratio=4):
    def qk_norm():
        return {name: {"scale": 1 + 0.2 * torch.randn(width // heads)} for name in ("query_norm", "key_norm")}

    def stream(name):
        return {
            f"{name}_mod": {"lin": matrix(6 * width, width)},
            f"{name}_attn": {"qkv": matrix(3 * width, width), "norm": qk_norm(), "proj": matrix(width, width)},
            f"{name}_mlp": {"0": matrix(ratio * width, width), "2": matrix(width, ratio * width)},
        }

    tree = {
        "latent_in": matrix(width, channels),
        "cond_in": matrix(width, context),
        "time_in": {"in_layer": matrix(width, 256), "out_layer": matrix(width, width)},
        "double_blocks": {str(i): stream("img") | stream("txt") for i in range(depth)},
        "single_blocks": {
            str(i): {
                "linear1": matrix((3 + ratio) * width, width),
                "linear2": matrix(width, (1 + ratio) * width),
                "norm": qk_norm(),
                "modulation": {"lin": matrix(3 * width, width)},
            }
            for i in range(single)
        },
        "final_layer": {"linear": matrix(channels, width), "adaLN_modulation": {"1": matrix(2 * width, width)}},
    }
    return dict(flat(tree))


def vae_weights(width=512, heads=HEADS, layers=LAYERS, channels=64, octaves=8):
    def attention(**parts):
        head_norms = {"q_norm": scale(width // heads), "k_norm": scale(width // heads)}
        return parts | {"c_proj": matrix(width, width), "attention": head_norms}

    def mlp():
        return {"c_fc": matrix(4 * width, width), "c_proj": matrix(width, 4 * width)}

    def block():
        attn = attention(c_qkv=matrix(3 * width, width, bias=False))
        return {"attn": attn, "mlp": mlp(), "ln_1": scale(width), "ln_2": scale(width)}

    cross = attention(c_q=matrix(width, width, bias=False), c_kv=matrix(2 * width, width, bias=False))
    tree = {
        "post_kl": matrix(width, channels),
        "transformer": {"resblocks": {str(i): block() for i in range(layers)}},
        "geo_decoder": {
            "query_proj": matrix(width, 3 * (2 * octaves + 1)),
            "cross_attn_decoder": {"attn": cross, "mlp": mlp()} | {f"ln_{i}": scale(width) for i in (1, 2, 3)},
            "ln_post": scale(width),
            "output_proj": matrix(1, width),
        },
    }
    return dict(flat(tree))


def make(what, seed):
    torch.manual_seed(seed)
    if what == "dit":
        w = dit_weights()
        x, context = torch.randn(1, 512, 64), torch.randn(1, 257, 1024)
        step = networks.guided_step(w, x, context, HEADS, DEPTH, SINGLE)
        tensors = {"in.x": x, "in.context": context, "out.step": step}
    elif what == "volume":
        w = vae_weights()
        z, queries = torch.randn(1, 512, 64), 2.02 * torch.rand(1, 8000, 3) - 1.01
        decoded = networks.decode(w, z, HEADS, LAYERS)
        tensors = {
            "in.z": z,
            "in.queries": queries,
            "mid.decoded": decoded,
            "out.logits": networks.logits(w, decoded, queries, HEADS),
            "out.grid": networks.dense_grid(w, decoded, HEADS, RESOLUTION),
        }
    else:
        w = smooth_shape()
        z = torch.randn(1, 64, 64)
        decoded = networks.decode(w, z, 2, 1)
        # The surface lies where most of the cube's faces are outside.
        faces = networks.dense_grid(w, decoded, 2, 16)[0]
        border = torch.cat([faces[0].flatten(), faces[-1].flatten(), faces[:, 0].flatten(), faces[:, -1].flatten()])
        w["geo_decoder.output_proj.bias"] -= border.quantile(0.9)
        queries = 2.02 * torch.rand(1, 1000, 3) - 1.01
        tensors = {
            "in.z": z,
            "in.queries": queries,
            "mid.decoded": decoded,
            "out.logits": networks.logits(w, decoded, queries, 2),
            "out.grid": networks.dense_grid(w, decoded, 2, RESOLUTION),
        }
    return {f"w.{key}": value for key, value in w.items()} | tensors


def smooth_shape():
    """A small decoder that hardly hears the fine octaves: a random field without detail, as trained ones are."""
    w = vae_weights(width=64, heads=2, layers=1)
    projection = w["geo_decoder.query_proj.weight"]
    # Columns after the point itself: sines, then cosines, each coordinate with its eight octaves.
    projection[:, 3:] *= (4.0 ** -torch.arange(8)).repeat(6)
    return w


def measure(run, reps):
    run()
    seconds, before = [], resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(reps):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "median_seconds": statistics.median(seconds),
        "min_seconds": min(seconds),
        "max_seconds": max(seconds),
        "cpu_seconds": cpu / reps,
    }


def timed(what, file, reps):
    tensors = load_file(file)
    w = {key.removeprefix("w."): value for key, value in tensors.items() if key.startswith("w.")}
    if what == "dit":
        x, context = tensors["in.x"], tensors["in.context"]
        run = lambda: networks.guided_step(w, x, context, HEADS, DEPTH, SINGLE)
        expected = tensors["out.step"]
    else:
        run = lambda: networks.dense_grid(w, networks.decode(w, tensors["in.z"], HEADS, LAYERS), HEADS, RESOLUTION)
        expected = tensors["out.grid"]
    error = (run() - expected).abs().max().item()
    return measure(run, reps) | {"max_abs_error": error}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["make", "time"])
    parser.add_argument("what", choices=["dit", "volume", "shape"])
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        if options.action == "make":
            tensors = {name: value.clone().contiguous() for name, value in make(options.what, options.seed).items()}
            save_file(tensors, options.file)
        else:
            report = timed(options.what, options.file, options.reps)
            about = {"workload": options.what, "side": "pytorch", "reps": options.reps, "threads": options.threads}
            print(json.dumps(about | report))


if __name__ == "__main__":
    main()
