"""Writes a trained network and its tokenizer as one GGUF file that llama.cpp reads: matrices in Q8_0.

Also a script: `export.py CHECKPOINT OUT` turns a checkpoint of `train.py` into a file. Not here: training.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tokenizer as tokenizers_of_ours
from gguf.quants import quantize
from model import Config
from tokenizers import Tokenizer

TEMPLATE = Path(__file__).parent / "chat_template.jinja"
DESCRIPTION = (
    "A very small model that knows a little about this software, does small talk and simple tool calls. "
    "Trained from scratch on the texts of this repository."
)


def _interleave(matrix: np.ndarray, head: int) -> np.ndarray:
    """Reorders a query or key matrix's rows (outputs) from half pairs to llama.cpp's neighbour pairs."""
    rows, columns = matrix.shape
    return matrix.reshape(rows // head, 2, head // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _tensors(config: Config, params: dict[str, Any]) -> dict[str, np.ndarray]:
    named = {"token_embd.weight": params["embed"], "output_norm.weight": params["norm"]}
    for index, layer in enumerate(params["layers"]):
        q, k, v = np.split(layer["qkv"].T, [config.width, config.width + config.kv_width])
        gate, up = np.split(layer["gate_up"].T, 2)
        block = {
            "attn_norm": layer["attn_norm"],
            "attn_q": _interleave(q, config.head),
            "attn_k": _interleave(k, config.head),
            "attn_v": v,
            "attn_output": layer["out"].T,
            "ffn_norm": layer["ffn_norm"],
            "ffn_gate": gate,
            "ffn_up": up,
            "ffn_down": layer["down"].T,
        }
        named.update({f"blk.{index}.{name}.weight": tensor for name, tensor in block.items()})
    return named


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    types = []
    for token in tokens:
        if token in tokenizers_of_ours.CONTROL:
            types.append(gguf.TokenType.CONTROL)
        elif token in tokenizers_of_ours.MARKUP:
            types.append(gguf.TokenType.USER_DEFINED)
        else:
            types.append(gguf.TokenType.NORMAL)
    merges = [" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizers_of_ours.PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(vocabulary["<|endoftext|>"])
    writer.add_eos_token_id(vocabulary["<|im_end|>"])
    writer.add_eot_token_id(vocabulary["<|im_end|>"])
    writer.add_pad_token_id(vocabulary["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(TEMPLATE.read_text(encoding="utf-8").rstrip("\n"))


def write(out: Path, config: Config, params: dict[str, Any], tokenizer: Tokenizer) -> None:
    """Writes `out`, replacing it in one step. Matrices are Q8_0, norms are float32."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "llama")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("jan-tiny")
    writer.add_basename("jan-tiny")
    writer.add_description(DESCRIPTION)
    writer.add_author("the jan-core authors")
    writer.add_organization("the jan-core authors")
    writer.add_license("apache-2.0")
    writer.add_languages(["en"])
    writer.add_vocab_size(config.vocab)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_rope_dimension_count(config.head)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(config.eps)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_tokenizer(writer, tokenizer)
    for name, tensor in _tensors(config, params).items():
        tensor = np.ascontiguousarray(tensor, np.float32)
        if tensor.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, quantize(tensor, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(out)


if __name__ == "__main__":
    with Path(sys.argv[1]).open("rb") as file:
        saved_config, saved_params, saved_tokenizer, *_ = pickle.load(file)
    write(Path(sys.argv[2]), saved_config, saved_params, Tokenizer.from_str(saved_tokenizer))
