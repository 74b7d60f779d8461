"""The picture encoder, the denoiser and the shape decoder in plain PyTorch, from the architecture notes: what our networks are timed beside.

Weights are a dictionary under the published state-dict keys. Everything is evaluated as the published pipeline does:
guidance as a batch of two, the context projected at each step, the field's keys and values computed for each chunk.
"""

import math

import torch
import torch.nn.functional as F


def linear(w, key, x):
    return F.linear(x, w[f"{key}.weight"], w.get(f"{key}.bias"))


def norm(w, key, x, eps=1e-6):
    return F.layer_norm(x, x.shape[-1:], w[f"{key}.weight"], w[f"{key}.bias"], eps)


def plain_norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


# ---------------------------------------------------------------- the picture encoder


def encode(w, pixels, heads, layers, patch=14):
    """DINOv2 with the gated feed-forward layer, at the picture size that its positions were trained for."""
    weight, bias = (w[f"embeddings.patch_embeddings.projection.{name}"] for name in ("weight", "bias"))
    patches = F.conv2d(pixels, weight, bias, stride=patch).flatten(2).transpose(1, 2)
    x = torch.cat((w["embeddings.cls_token"].expand(len(pixels), -1, -1), patches), 1)
    x = x + w["embeddings.position_embeddings"]
    for i in range(layers):
        key = f"encoder.layer.{i}"
        y = norm(w, f"{key}.norm1", x)
        q, k, v = (
            linear(w, f"{key}.attention.attention.{name}", y).unflatten(-1, (heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        attended = linear(w, f"{key}.attention.output.dense", attend(q, k, v))
        x = x + attended * w[f"{key}.layer_scale1.lambda1"]
        gate, value = linear(w, f"{key}.mlp.weights_in", norm(w, f"{key}.norm2", x)).chunk(2, -1)
        x = x + linear(w, f"{key}.mlp.weights_out", F.silu(gate) * value) * w[f"{key}.layer_scale2.lambda1"]
    return norm(w, "layernorm", x)


# ---------------------------------------------------------------- the denoiser


def rms(x, scale):
    exact = x.float()
    return (exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * scale


def heads_of(w, key, x, qkv, heads):
    """[B, L, 3D] laid out [3][H][d] to q, k, v [B, H, L, d], q and k normalised."""
    batch, tokens, width = qkv.shape
    q, k, v = qkv.view(batch, tokens, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)
    return rms(q, w[f"{key}.norm.query_norm.scale"]), rms(k, w[f"{key}.norm.key_norm.scale"]), v


def attend(q, k, v):
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def modulation(w, key, vec, parts):
    return linear(w, key, F.silu(vec)).unsqueeze(1).chunk(parts, -1)


def double_block(w, key, img, txt, vec, heads):
    streams, joined = {}, []
    for name, x in (("txt", txt), ("img", img)):
        parts = modulation(w, f"{key}.{name}_mod.lin", vec, 6)
        shift, scale = parts[0], parts[1]
        qkv = linear(w, f"{key}.{name}_attn.qkv", (1 + scale) * plain_norm(x) + shift)
        joined.append(heads_of(w, f"{key}.{name}_attn", x, qkv, heads))
        streams[name] = (x, parts)
    attended = attend(*(torch.cat(pair, 2) for pair in zip(*joined)))
    tokens = txt.shape[1]
    results = {}
    for name, part in (("txt", attended[:, :tokens]), ("img", attended[:, tokens:])):
        x, (_, _, gate1, shift2, scale2, gate2) = streams[name]
        x = x + gate1 * linear(w, f"{key}.{name}_attn.proj", part)
        hidden = linear(w, f"{key}.{name}_mlp.0", (1 + scale2) * plain_norm(x) + shift2)
        results[name] = x + gate2 * linear(w, f"{key}.{name}_mlp.2", F.gelu(hidden, approximate="tanh"))
    return results["img"], results["txt"]


def single_block(w, key, x, vec, heads):
    shift, scale, gate = modulation(w, f"{key}.modulation.lin", vec, 3)
    width = x.shape[-1]
    y = linear(w, f"{key}.linear1", (1 + scale) * plain_norm(x) + shift)
    qkv, mlp = y.split([3 * width, y.shape[-1] - 3 * width], -1)
    attended = attend(*heads_of(w, key, x, qkv, heads))
    return x + gate * linear(w, f"{key}.linear2", torch.cat((attended, F.gelu(mlp, approximate="tanh")), -1))


def velocity(w, x, t, context, heads, depth, single):
    frequencies = torch.exp(-math.log(1000) * torch.arange(128, dtype=torch.float32, device=t.device) / 128)
    angles = 1000 * t[:, None].float() * frequencies
    embedding = torch.cat((angles.cos(), angles.sin()), -1).to(x.dtype)
    vec = linear(w, "time_in.out_layer", F.silu(linear(w, "time_in.in_layer", embedding)))
    img, txt = linear(w, "latent_in", x), linear(w, "cond_in", context)
    for i in range(depth):
        img, txt = double_block(w, f"double_blocks.{i}", img, txt, vec, heads)
    hidden = torch.cat((txt, img), 1)
    for i in range(single):
        hidden = single_block(w, f"single_blocks.{i}", hidden, vec, heads)
    shift, scale = modulation(w, "final_layer.adaLN_modulation.1", vec, 2)
    return linear(w, "final_layer.linear", (1 + scale) * plain_norm(hidden[:, txt.shape[1] :]) + shift)


def guided_step(w, x, context, heads, depth, single, t=0.25, guidance=5.0, length=0.02):
    both = torch.cat((context, torch.zeros_like(context)))
    conditioned, unconditioned = velocity(
        w, torch.cat((x, x)), torch.full((2,), t, device=x.device), both, heads, depth, single
    ).chunk(2)
    return x + length * (unconditioned + guidance * (conditioned - unconditioned))


# ---------------------------------------------------------------- the shape decoder


def interleaved(x, heads, parts):
    """[B, L, parts·H·d] laid out [H][parts][d] to parts × [B, H, L, d]."""
    batch, tokens, width = x.shape
    return x.view(batch, tokens, heads, parts, width // heads // parts).permute(3, 0, 2, 1, 4)


def decode(w, latents, heads, layers):
    h = linear(w, "post_kl", latents)
    for i in range(layers):
        key = f"transformer.resblocks.{i}"
        q, k, v = interleaved(linear(w, f"{key}.attn.c_qkv", norm(w, f"{key}.ln_1", h)), heads, 3)
        q, k = norm(w, f"{key}.attn.attention.q_norm", q), norm(w, f"{key}.attn.attention.k_norm", k)
        h = h + linear(w, f"{key}.attn.c_proj", attend(q, k, v))
        h = h + linear(w, f"{key}.mlp.c_proj", F.gelu(linear(w, f"{key}.mlp.c_fc", norm(w, f"{key}.ln_2", h))))
    return h


def logits(w, tokens, points, heads, octaves=8):
    key = "geo_decoder.cross_attn_decoder"
    frequencies = 2.0 ** torch.arange(octaves, dtype=torch.float32, device=points.device)
    angles = (points[..., None] * frequencies).flatten(-2)
    features = torch.cat((points, angles.sin(), angles.cos()), -1).to(tokens.dtype)
    x = linear(w, "geo_decoder.query_proj", features)
    k, v = interleaved(linear(w, f"{key}.attn.c_kv", norm(w, f"{key}.ln_2", tokens)), heads, 2)
    (q,) = interleaved(linear(w, f"{key}.attn.c_q", norm(w, f"{key}.ln_1", x)), heads, 1)
    q, k = norm(w, f"{key}.attn.attention.q_norm", q), norm(w, f"{key}.attn.attention.k_norm", k)
    x = x + linear(w, f"{key}.attn.c_proj", attend(q, k, v))
    x = x + linear(w, f"{key}.mlp.c_proj", F.gelu(linear(w, f"{key}.mlp.c_fc", norm(w, f"{key}.ln_3", x))))
    return linear(w, "geo_decoder.output_proj", norm(w, "geo_decoder.ln_post", x, 1e-5))


def dense_grid(w, tokens, heads, resolution, bound=1.01, chunk=8000):
    axis = torch.linspace(-bound, bound, resolution + 1, device=tokens.device)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).view(1, -1, 3)
    parts = [logits(w, tokens, part, heads) for part in points.split(chunk, 1)]
    side = resolution + 1
    return torch.cat(parts, 1).float().view(1, side, side, side)
