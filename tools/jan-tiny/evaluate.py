# /// script
# requires-python = ">=3.11"
# dependencies = ["llama-cpp-python==0.3.36", "numpy==2.4.6", "tokenizers==0.23.3", "gguf==0.19.0"]
# ///
"""Measures the finished GGUF file with llama.cpp at temperature 0: `uv run tools/jan-tiny/evaluate.py`.

An answer counts only when it is the taught one, character for character. Prompts are rendered by the file's
own chat template. Needs llama-cpp-python. Not here: measurements while training, which `train.py` makes.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import toolcalls
from conversation import chat, tool_chat
from corpus import read, topics
from llama_cpp import Llama
from tokenizer import from_gguf

HERE = Path(__file__).parent
SHIPPED = HERE.parents[1] / "extensions/llamacpp/src/jan_llamacpp/models/jan-tiny.gguf"
HELPFUL = {"role": "system", "content": "You are a helpful assistant."}
UNICODE = (
    (0x20, 0x7E),
    (0x9, 0x24F),
    (0x370, 0x6FF),
    (0x900, 0xDFF),
    (0x3040, 0x30FF),
    (0x4E00, 0x9FFF),
    (0x1F300, 0x1F64F),
)
"""Ranges of code points that random texts are drawn from."""
Message = dict[str, Any]


class Subject:
    """The model under test."""

    def __init__(self, path: Path, threads: int) -> None:
        self.llama = Llama(str(path), n_ctx=1024, n_threads=threads, n_threads_batch=threads, verbose=False)

    def answer(self, messages: list[Message], tools: list[Any] | None = None) -> str:
        """The whole greedy answer to a conversation."""
        reply = self.llama.create_chat_completion(messages, tools=tools, temperature=0.0, max_tokens=500)
        return str(reply["choices"][0]["message"]["content"])


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def share(name: str, results: Iterable[tuple[bool, str]], show: bool) -> dict[str, Any]:
    """Counts and prints one measurement."""
    right, wrong = 0, []
    for good, note in results:
        right += good
        if not good:
            wrong.append(note)
    total = right + len(wrong)
    print(f"{name}: {right}/{total} = {right / total:.1%}", flush=True)
    if show:
        print("".join(f"    {note}\n" for note in wrong), end="", flush=True)
    return {"right": right, "of": total}


def questions(subject: Subject, pairs: list[tuple[str, str]], system: bool) -> Iterable[tuple[bool, str]]:
    """Single questions, each in a new conversation."""
    for question, wanted in pairs:
        got = subject.answer([HELPFUL, _user(question)] if system else [_user(question)])
        yield got == wanted, f"{question!r} -> {got[:90]!r}"


def repetitions(subject: Subject, count: int) -> Iterable[tuple[bool, str]]:
    """Requests to repeat words, names, paths and numbers."""
    rng = random.Random(5)
    for _ in range(count):
        question, wanted = toolcalls.repeat(rng, True)
        got = subject.answer([HELPFUL, _user(question)])
        yield got == wanted, f"{question!r} -> {got[:90]!r}"


def tool_calls(subject: Subject, count: int, held_out: bool) -> Iterable[tuple[bool, str]]:
    """Calls: the name and all arguments must be right, copied out of the question."""
    rng = random.Random(7 + held_out)
    for _ in range(count):
        tools = toolcalls.declare_several(rng, rng.choice([1, 2, 3]))
        one = toolcalls.exchange(rng, rng.choice(tools), held_out)
        got = subject.answer([HELPFUL, _user(one.question)], [tool.schema for tool in tools])
        yield got == one.call, f"{one.question!r} -> {got!r}"


def tool_answers(subject: Subject, count: int) -> Iterable[tuple[bool, str]]:
    """Answers after a tool has returned held-out values."""
    rng = random.Random(9)
    for _ in range(count):
        tools = toolcalls.declare_several(rng, rng.choice([1, 2, 3]))
        one = toolcalls.exchange(rng, rng.choice(tools), True)
        call = json.loads(one.call.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
        said = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": call}]}
        messages = [HELPFUL, _user(one.question), said, {"role": "tool", "content": one.result}]
        got = subject.answer(messages, [tool.schema for tool in tools])
        yield got == one.answer, f"{one.question!r} {one.result!r} -> {got!r}"


def turns(subject: Subject, conversations: int, length: int) -> Iterable[tuple[bool, str]]:
    """Conversations of unrelated canonical questions; the model's own answers are the history."""
    rng = random.Random(11)
    short = [topic for topic in topics() if len(topic.answer) < 200]
    for number in range(conversations):
        messages: list[Message] = [HELPFUL] if number % 2 else []
        for place, topic in enumerate(rng.sample(short, length), 1):
            messages.append(_user(topic.canonical))
            got = subject.answer(messages)
            messages.append({"role": "assistant", "content": got})
            yield got == topic.answer, f"turn {place} {topic.canonical!r} -> {got[:90]!r}"


def tokenizations(subject: Subject, path: Path) -> Iterable[tuple[bool, str]]:
    """llama.cpp's tokens and ours, on corpus and random Unicode, and whether they turn back into the text."""
    ours = from_gguf(path)
    rng = random.Random(13)
    texts = [topic.answer for topic in topics()]
    texts += [question for topic in topics() for question in topic.held_out]
    for make in (chat, tool_chat):
        texts += ["".join(piece.text for piece in make(rng, 2000)) for _ in range(100)]
    for _ in range(2000):
        low, high = rng.choice(UNICODE)
        drawn = [chr(rng.randint(low, high)) for _ in range(20)] + rng.choices(" \n\t'az09", k=10)
        rng.shuffle(drawn)
        texts.append("".join(drawn))
    for text in texts:
        theirs = subject.llama.tokenize(text.encode(), add_bos=False, special=True)
        back = subject.llama.detokenize(theirs, special=True).decode(errors="replace")
        yield theirs == ours.encode(text).ids and back == text, repr(text[:80])


def main() -> None:
    """Prints every measurement, and with --json writes them to a file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--model", type=Path, default=SHIPPED)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--show", action="store_true", help="print what was answered wrongly")
    arguments.add_argument("--json", type=Path, help="also write the figures here")
    chosen = arguments.parse_args()
    subject = Subject(chosen.model, chosen.threads)
    other = read("offtopic.toml")
    taught = [(topic.canonical, topic.answer) for topic in topics()] + [(other["canonical"], other["answer"])]
    unseen = [(question, topic.answer) for topic in topics() for question in topic.held_out]
    fresh = [(read("fresh.toml")["fresh"][topic.id], topic.answer) for topic in topics()]
    off = [(question, other["answer"]) for question in other["held_out"]]
    plan = {
        "tokenizer equals llama.cpp's": tokenizations(subject, chosen.model),
        "canonical questions": questions(subject, taught, False),
        "canonical questions, with the usual system message": questions(subject, taught, True),
        "held-out paraphrases": questions(subject, unseen, False),
        "held-out paraphrases, with the usual system message": questions(subject, unseen, True),
        "second held-out set": questions(subject, fresh, False),
        "second held-out set, with the usual system message": questions(subject, fresh, True),
        "held-out off-topic questions declined": questions(subject, off, False),
        "repetitions, held-out words": repetitions(subject, 200),
        "tool calls, values from the training lists": tool_calls(subject, 200, False),
        "tool calls, held-out values": tool_calls(subject, 300, True),
        "answers from a tool's result, held-out values": tool_answers(subject, 200),
        "turns of six-turn conversations": turns(subject, 40, 6),
    }
    figures = {name: share(name, results, chosen.show) for name, results in plan.items()}
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
