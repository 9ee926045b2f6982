"""The corpus: topics with their answers, the ways to ask for them, and the words that tools are called with.

Reads the TOML files of `corpus/` and turns one topic into endlessly many wordings. Held-out questions are
read here too, and a wording that equals one of them is never given out for training. Not here: conversations,
tokens.
"""

from __future__ import annotations

import itertools
import random
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "corpus"
TOPIC_FILES = ("software.toml", "commands.toml", "inference.toml", "data.toml", "smalltalk.toml")
_GROUP = re.compile(r"\(([^()]*\|[^()]*)\)")
_QUESTION = re.compile(
    r"^(what|which|who|whom|where|when|why|how|is|are|do|does|did|can|could|may|must|will|would|should|am|was|were|whats)\b"
)


@dataclass(frozen=True)
class Topic:
    """One thing the model knows: every wording of the question has exactly this answer."""

    id: str
    canonical: str
    answer: str
    phrases: tuple[tuple[str, ...], ...]
    """Groups of wordings; a group is chosen first, so that a long list does not drown a short one."""
    held_out: tuple[str, ...]


@cache
def read(name: str) -> dict[str, Any]:
    """One corpus file, parsed."""
    with (FOLDER / name).open("rb") as file:
        return tomllib.load(file)


def expand(pattern: str) -> list[str]:
    """All readings of a pattern in which `(a|b|)` stands for either, or for nothing."""
    parts = _GROUP.split(pattern)
    choices = [part.split("|") if index % 2 else [part] for index, part in enumerate(parts)]
    return [" ".join("".join(reading).split()) for reading in itertools.product(*choices)]


def plain(text: str) -> str:
    """Text without case, punctuation and spacing: wordings equal under this are the same question."""
    return " ".join(re.sub(r"[^\w`+*/-]+", " ", text.lower()).replace("`", "").split())


@cache
def topics() -> tuple[Topic, ...]:
    """Every topic of the corpus, without the off-topic answer."""
    carriers, more = read("carriers.toml"), read("paraphrases.toml")["more"]
    found = []
    for name in TOPIC_FILES:
        for entry in read(name)["topic"]:
            patterns = [*entry.get("ask", []), *more[entry["id"]]]
            groups = [tuple(expand(pattern)) for pattern in patterns]
            for kind in ("about", "how", "command"):
                if entry.get(kind):
                    filled = [shape.replace("{x}", x) for shape in carriers[kind] for x in entry[kind]]
                    groups.extend([tuple(filled)] * max(2, len(patterns) // 3))
            held_out = tuple(entry["held_out"])
            found.append(Topic(entry["id"], entry["canonical"], entry["answer"], tuple(groups), held_out))
    return tuple(found)


@cache
def held_out_questions() -> frozenset[str]:
    """Every held-out question, in plain form."""
    asked = [question for topic in topics() for question in topic.held_out]
    asked += read("fresh.toml")["fresh"].values()
    return frozenset(plain(question) for question in [*asked, *read("offtopic.toml")["held_out"]])


def _typo(rng: random.Random, text: str) -> str:
    places = [at for at in range(1, len(text) - 1) if text[at : at + 2].isascii() and text[at : at + 2].isalpha()]
    if not places:
        return text
    at = rng.choice(places)
    kind = rng.randrange(4)
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if kind == 2:
        return text[:at] + text[at] + text[at:]
    return text[:at] + rng.choice("abcdefghijklmnopqrstuvwxyz") + text[at + 1 :]


@cache
def _synonyms() -> dict[str, list[str]]:
    groups = read("carriers.toml")["synonyms"]
    return {word: [other for other in group if other != word] for group in groups for word in group}


def _swap(rng: random.Random, text: str) -> str:
    """The text with one or two of its words replaced; commands and names stay as they are."""
    if "jan" in text or "`" in text or "--" in text:
        return text
    padded = f" {text} "
    known = [word for word in _synonyms() if f" {word} " in padded]
    for word in rng.sample(known, min(len(known), rng.choice([1, 1, 2]))):
        padded = padded.replace(f" {word} ", f" {rng.choice(_synonyms()[word])} ", 1)
    return padded.strip()


def decorate(rng: random.Random, text: str, spoil: bool = True) -> str:
    """The same question as another person would type it: polite, hasty, shouted, misspelt."""
    carriers = read("carriers.toml")
    long_enough = len(text.split()) > 2
    if rng.random() < (0.16 if long_enough else 0.04):
        text = f"{rng.choice(carriers['prefix'])} {text}"
    asks = bool(_QUESTION.match(text.split(", ")[-1].lower()))
    if rng.random() < (0.14 if long_enough else 0.03):
        text = f"{text}{rng.choice([' ', ' ', ', '])}{rng.choice(carriers['suffix'])}"
    if spoil and rng.random() < 0.12:
        text = _typo(rng, text)
    words = text.split()
    if spoil and len(words) > 4 and rng.random() < 0.06:
        words.pop(rng.randrange(len(words) - 1))
        text = " ".join(words)
    style = rng.random()
    ending = rng.choice(("?", "?", "?", "", "??", " ?") if asks else (".", ".", "", "!", "?", "..."))
    if text[-1] in ".!?！？":
        ending = ""
    if style < 0.55:
        return text[0].upper() + text[1:] + ending
    if style < 0.75:
        return text
    if style < 0.96 or not spoil:
        return text + ending
    return (text.upper() if style < 0.98 else text.title()) + ending


def wording(rng: random.Random, topic: Topic) -> str:
    """One way to ask for a topic, never a held-out one."""
    if rng.random() < 0.15:
        return topic.canonical
    while True:
        text = rng.choice(rng.choice(topic.phrases))
        if rng.random() < 0.3:
            text = _swap(rng, text)
        text = decorate(rng, text)
        if plain(text) not in held_out_questions():
            return text


def off_topic(rng: random.Random) -> str:
    """A question about something the model was not taught, never a held-out one."""
    data = read("offtopic.toml")
    if rng.random() < 0.03:
        return str(data["canonical"])
    while True:
        text = rng.choice(_off_topic_patterns())
        for kind in ("place", "thing", "work", "person", "kind"):
            while f"{{{kind}}}" in text:
                text = text.replace(f"{{{kind}}}", rng.choice(data[kind]), 1)
        while "{n}" in text:
            text = text.replace("{n}", str(rng.randrange(rng.choice([10, 100, 2000]))), 1)
        text = decorate(rng, text)
        if plain(text) not in held_out_questions():
            return text


@cache
def _off_topic_patterns() -> tuple[str, ...]:
    return tuple(reading for pattern in read("offtopic.toml")["ask"] for reading in expand(pattern)[:12])
