"""The corpus is sound: what is held out stays out, what is taught is unambiguous and names what exists."""

from __future__ import annotations

import random
import re

import pytest
from corpus import Topic, expand, held_out_questions, off_topic, plain, read, topics, wording

COMMANDS = {
    "chat": set(),
    "serve": set(),
    "sidecar": set(),
    "models": {"list", "show", "pull", "import", "load", "unload", "rm"},
    "registry": {"status", "refresh", "featured", "search", "phase", "report"}
    | {"init", "add", "feature", "flag", "revoke", "publish", "rotate-keys"},
    "downloads": {"list", "start", "pause", "resume", "cancel", "verify"},
    "engines": {"list", "explain", "install", "use", "rollback", "remove"},
    "threads": {"list", "show", "search", "export", "import", "rm"},
    "assistants": {"list", "show", "create", "rm"},
    "ext": {"list", "new", "install", "uninstall", "enable", "disable", "reload", "logs", "doctor"},
    "settings": {"get", "set", "list"},
    "doctor": set(),
    "rpc": set(),
    "schema": {"openrpc", "typescript", "rust"},
}


def test_a_pattern_expands_to_every_reading() -> None:
    assert expand("(a|b) c( d|)") == ["a c d", "a c", "b c d", "b c"]
    assert expand("no choice (here)") == ["no choice (here)"]


def test_no_held_out_question_is_ever_given_out_for_training() -> None:
    rng = random.Random(5)
    held_out = held_out_questions()
    assert len(held_out) > 400
    for topic in topics():
        for _ in range(15):
            assert plain(wording(rng, topic)) not in held_out
    assert not any(plain(off_topic(rng)) in held_out for _ in range(2000))


def test_no_canonical_question_is_held_out() -> None:
    assert not [topic.id for topic in topics() if plain(topic.canonical) in held_out_questions()]


def test_topics_have_an_id_and_a_canonical_question_of_their_own() -> None:
    assert len({topic.id for topic in topics()}) == len(topics())
    assert len({plain(topic.canonical) for topic in topics()}) == len(topics())


def test_the_second_held_out_set_has_one_question_for_every_topic() -> None:
    fresh = read("fresh.toml")["fresh"]
    assert set(fresh) == {topic.id for topic in topics()}
    assert len({plain(question) for question in fresh.values()}) == len(fresh)


def test_no_question_is_held_out_for_two_topics() -> None:
    asked = [plain(question) for topic in topics() for question in topic.held_out]
    assert len(asked) == len(set(asked))


def test_every_topic_is_asked_in_many_ways_and_has_something_held_out() -> None:
    rng = random.Random(6)
    for topic in topics():
        assert topic.held_out, topic.id
        assert len({wording(rng, topic) for _ in range(90)}) >= 20, topic.id


@pytest.mark.parametrize("topic", topics(), ids=lambda topic: topic.id)
def test_an_answer_names_only_commands_that_exist(topic: Topic) -> None:
    for command in re.findall(r"`jan ([a-z]+(?: [a-z-]+)?)", " ".join([topic.answer, topic.canonical])):
        first, _, second = command.partition(" ")
        assert first in COMMANDS, command
        assert not second or not COMMANDS[first] or second in COMMANDS[first], command


def test_every_command_is_taught() -> None:
    taught = " ".join(topic.answer for topic in topics())
    assert not [name for name in COMMANDS if f"jan {name}" not in taught]


def test_tool_values_that_are_held_out_are_not_trained_on() -> None:
    data = read("tools.toml")
    for kind, values in data["held_out"].items():
        assert not set(values) & set(data["words"][kind]), kind
