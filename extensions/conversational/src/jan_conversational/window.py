"""What fits the context window: the oldest messages go first.

Pure functions over an `Assembly`. They neither count tokens nor raise: whether the rest fits is a question
for their caller, because an exception in a hook would cost only the hook's result.
"""

from __future__ import annotations

import msgspec

from jan_core.types import Assembly, Budget

__all__ = ["drop_oldest", "must_stay"]


def must_stay(assembly: Assembly) -> set[int]:
    """Indices of what is never dropped: system and pinned messages, the newest user's and what follows it."""
    messages = assembly.messages
    stay = {i for i in assembly.pinned if 0 <= i < len(messages)}
    stay.update(i for i, m in enumerate(messages) if m.role in ("system", "developer"))
    users = [i for i, m in enumerate(messages) if m.role == "user"]
    stay.update(range(users[-1] if users else max(0, len(messages) - 1), len(messages)))
    return stay


def drop_oldest(assembly: Assembly, budget: Budget) -> Assembly:
    """Leave out the oldest messages until the rest takes no more than `budget.prompt` tokens.

    An answer goes with its question: what follows a dropped message goes too, up to the next user's, because
    chat templates want the conversation to begin with one. Returns the assembly itself when everything fits.
    """
    count = len(assembly.messages)
    if not len(assembly.tokens) == len(assembly.ids) == count:
        return assembly  # another extension's, and not consistent: not ours to cut
    excess = sum(assembly.tokens) - budget.prompt
    if excess <= 0:
        return assembly
    stay = must_stay(assembly)
    dropped: set[int] = set()
    for i, message in enumerate(assembly.messages):
        if i in stay:
            continue
        if excess <= 0 and message.role == "user":
            break
        dropped.add(i)
        excess -= assembly.tokens[i]
    if not dropped:
        return assembly
    kept = [i for i in range(count) if i not in dropped]
    place = {old: new for new, old in enumerate(kept)}
    return msgspec.structs.replace(
        assembly,
        messages=[assembly.messages[i] for i in kept],
        tokens=[assembly.tokens[i] for i in kept],
        ids=[assembly.ids[i] for i in kept],
        pinned=[place[i] for i in assembly.pinned if i in place],
        omitted=[*assembly.omitted, *(assembly.ids[i] for i in sorted(dropped) if assembly.ids[i])],
        notes=[*assembly.notes, f"{len(dropped)} older messages were left out to fit {budget.prompt} tokens"],
    )
