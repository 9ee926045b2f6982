"""Tool calls in the text of an answer, taken out of it while it comes.

How a model writes them is a row of the table in `forms.py`, chosen by the model's chat template. `patterns.py` reads
the rows, `reading.py` one call, `stream.py` the answer; `values.py` says what a text is where a form has only texts.
`rules.py` makes grammars of the same rows, so that what a model is made to write is what is read. No I/O.
"""

from __future__ import annotations

from .forms import FORMS, Form, form_of
from .rules import call_rules, text_rules, triggers_of
from .stream import CallPart, ToolCallStream

__all__ = ["FORMS", "CallPart", "Form", "ToolCallStream", "call_rules", "form_of", "text_rules", "triggers_of"]
