"""The tokenizer: byte-level BPE whose pre-tokenizer is the one llama.cpp calls `smollm`.

Digits stand alone; all 256 bytes are in the vocabulary, so any text round-trips. Not here: writing GGUF.
"""

from __future__ import annotations

import random
from pathlib import Path

from conversation import chat, tool_chat
from corpus import read, topics
from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Never shown to a user, and never read out of a user's text by a client that escapes them."""
MARKUP = ("<tools>", "</tools>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
"""One token each, but ordinary text: a client sees them in the answer and parses them."""
PRE_TOKENIZER = "smollm"


def untrained() -> Tokenizer:
    """A tokenizer with the right pre-tokenizer and no merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _markup() -> list[AddedToken]:
    return [AddedToken(text, special=False, normalized=False) for text in MARKUP]


def train(vocab: int, seed: int) -> Tokenizer:
    """Learns merges from answers and from sampled conversations. The result has exactly `vocab` tokens."""
    rng = random.Random(seed)
    texts = [topic.answer for topic in topics()] * 20 + [topic.canonical for topic in topics()] * 5
    texts += [read("offtopic.toml")["answer"]] * 50
    for _ in range(1500):
        texts += [piece.text for piece in chat(rng, 1500)]
    for _ in range(150):
        texts += [piece.text for piece in tool_chat(rng, 1500)]
    tokenizer = untrained()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab,
            special_tokens=[*CONTROL, *_markup()],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if tokenizer.get_vocab_size() != vocab:
        raise ValueError(f"the corpus gave {tokenizer.get_vocab_size()} tokens, not {vocab}")
    return tokenizer


def from_gguf(path: Path) -> Tokenizer:
    """The tokenizer that a GGUF file of ours carries, to compare llama.cpp's reading of it with ours."""
    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = untrained()
    tokenizer.model = models.BPE({token: index for index, token in enumerate(tokens)}, merges)
    tokenizer.add_special_tokens(list(CONTROL))
    tokenizer.add_tokens(_markup())
    return tokenizer
