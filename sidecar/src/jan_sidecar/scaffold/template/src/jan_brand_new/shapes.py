"""What goes in and out. These types are the schema: params that do not fit never reach the code."""

from typing import Annotated

from msgspec import Meta, Struct


class Settings(Struct):
    """`greeting`: how to begin."""

    greeting: Annotated[str, Meta(min_length=1, max_length=100)] = "Hello"


class Greet(Struct, forbid_unknown_fields=True):
    """`name`: who is greeted."""

    name: Annotated[str, Meta(min_length=1, max_length=100)] = "world"


class Greeting(Struct):
    """`count`: how many were greeted so far."""

    text: str
    count: int


class Memory(Struct):
    """What one generation hands to the next when the code is reloaded. Fields need defaults: older code may not have
    known them."""

    greeted: int = 0
