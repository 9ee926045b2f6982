"""A corpus of hostile chat templates: each ends in a typed refusal or harmless text, soon, and nothing of it runs.

A template comes out of a model file that anybody may have made (CVE-2024-34359 was a package that rendered such
templates without a sandbox). The payloads are those known for Jinja2 (attribute walks to `os`, format strings, filters
that look up attributes, globals), ways around names that are searched for, and bombs for time and memory.

They run in a child of their own: an attack that succeeded would leave its mark there, and is looked for.
"""

# ruff: noqa: E501 (payloads are left as they are)
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from jan_llamacpp.template_limits import MAX_SECONDS

MARK = "pwned"
RUN = f"touch {MARK}"

WALKS = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ().__class__.__bases__[0].__subclasses__() }}",
    "{{ [].__class__.__base__.__subclasses__() }}",
    "{{ {}.__class__.__mro__[-1].__subclasses__()[40]('/etc/passwd').read() }}",
    "{% for c in ().__class__.__base__.__subclasses__() %}{% if c.__name__ == 'Popen' %}{{ c('RUN', shell=True) }}{% endif %}{% endfor %}",
    "{% for c in [].__class__.__base__.__subclasses__() %}{% if c.__name__ == 'catch_warnings' %}{{ c()._module.__builtins__['__import__']('os').system('RUN') }}{% endif %}{% endfor %}",
    "{{ self.__init__.__globals__.__builtins__.__import__('os').popen('RUN').read() }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.popen('RUN').read() }}",
    "{{ self._TemplateReference__context.joiner.__init__.__globals__.os.popen('RUN').read() }}",
    "{{ self._TemplateReference__context.namespace.__init__.__globals__.os.popen('RUN').read() }}",
    "{{ cycler.__init__.__globals__.os.popen('RUN').read() }}",
    "{{ joiner.__init__.__globals__.os.popen('RUN').read() }}",
    "{{ namespace.__init__.__globals__.os.popen('RUN').read() }}",
    "{{ lipsum.__globals__['os'].popen('RUN').read() }}",
    "{{ lipsum.__globals__.__builtins__.open('MARK', 'w') }}",
    "{{ dict.__init__.__globals__ }}",
    "{{ dict.mro()[-1].__subclasses__() }}",
    "{{ range.__class__.__call__ }}",
    "{{ raise_exception.__globals__['os'].system('RUN') }}",
    "{{ raise_exception.__code__.co_consts }}",
    "{{ strftime_now.__globals__.sys.modules.os.system('RUN') }}",
    "{{ messages.__class__.__init__.__globals__ }}",
    "{{ messages[0].get.__self__.__class__.__mro__ }}",
    "{{ messages.append.__self__ }}",
    "{{ loop.__class__ }}{% for i in [1] %}{{ loop.__init__.__globals__.sys }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}",
    "{% macro m() %}{{ caller.__init__.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{% macro m() %}{{ varargs.__class__.__mro__ }}{% endmacro %}{{ m(1) }}",
    "{% set g = (x for x in []) %}{{ g.gi_frame.f_globals }}",
    "{{ (messages | map('upper')).gi_frame.f_back.f_globals }}",
    "{{ (messages | map('upper')).gi_code }}",
    "{{ undefined_name.__class__.__init__.__globals__ }}",
    "{{ undefined_name._undefined_exception.__init__.__globals__ }}",
    "{{ config.items() }}",
    "{{ request.application.__globals__.__builtins__.__import__('os').popen('RUN').read() }}",
    "{{ url_for.__globals__.os.system('RUN') }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ g.pop.__globals__.__builtins__ }}",
    "{{ environment.globals }}",
    "{{ self.environment.loader }}",
    "{{ self._TemplateReference__context.environment.globals }}",
    "{{ ''.join.__self__.__class__ }}",
    "{{ 1.0.__class__.fromhex.__self__ }}",
    "{{ (0).__class__.__init__.__objclass__ }}",
]
DISGUISES = [
    "{{ ''['__class__'] }}",
    "{{ ''['__cla' ~ 'ss__']['__mr' ~ 'o__'] }}",
    "{{ ''['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{{ ''['\\u005f\\u005fclass\\u005f\\u005f'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ ''|attr('__class__')|attr('__mro__')|attr('__getitem__')(1)|attr('__subclasses__')() }}",
    "{{ ''|attr(['__cl', 'ass__']|join) }}",
    "{{ ''|attr('__ssalc__'|reverse) }}",
    "{{ ''|attr('%c%cclass%c%c' % (95, 95, 95, 95)) }}",
    "{{ ''|attr('_' * 2 ~ 'class' ~ '_' * 2) }}",
    "{{ ''|attr('__CLASS__'|lower) }}",
    "{{ cycler|attr('__init__')|attr('__globals__') }}",
    "{{ [cycler]|map(attribute='__init__')|list }}",
    "{{ [cycler]|map(attribute='__init__.__globals__')|first }}",
    "{{ [cycler]|map('attr', '__init__')|map('attr', '__globals__')|first }}",
    "{{ messages|map(attribute='__class__.__init__')|list }}",
    "{{ messages|selectattr('__class__.__mro__')|list }}",
    "{{ messages|groupby('__class__')|list }}",
    "{{ messages|sort(attribute='__class__') }}",
    "{{ [1, 2]|sum(attribute='__class__', start='') }}",
    "{{ messages|unique(attribute='__class__')|list }}",
    "{{ [cycler]|join(attribute='__init__.__globals__') }}",
    "{{ [cycler, joiner]|max(attribute='__init__') }}",
    "{{ [raise_exception]|map(attribute='__globals__')|list }}",
]
FORMATS = [
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{0.__init__.__globals__}'.format(cycler) }}",
    "{{ '{a.__init__.__globals__[os].environ}'.format(a=cycler) }}",
    "{{ '{0[__class__]}'.format({}) }}",
    "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{% set f = '{0.__class__}'.format %}{{ f(1) }}",
    "{{ ['{0.__init__.__globals__}']|map('format', cycler)|list }}",
    "{{ '{0.__globals__}'|format(raise_exception) }}",
    "{{ ('{0.__init__'|safe ~ '.__globals__}').format(cycler) }}",
    "{{ ('{0.__class__}'|safe).format(1) }}",
    "{{ ('{x.__class__}'|safe).format_map({'x': 1}) }}",
    "{{ ''.format.__call__('{0.__class__}', 1) }}",
    "{% set m = dict(f='{0.__init__.__globals__}'.format) %}{{ m.f(cycler) }}",
    "{{ ['{0.__init__.__globals__}'.format]|map(attribute='__call__')|first }}",
    "{{ [cycler]|map('{0.__init__.__globals__}'.format)|list }}",
]
CODE = [
    "{% import 'os' as os %}{{ os.system('RUN') }}",
    "{% from 'os' import system %}{{ system('RUN') }}",
    "{% include '/etc/passwd' %}",
    "{% extends '/etc/passwd' %}",
    "{% include ['../../../etc/passwd', 'x'] %}",
    "{% set os = import('os') %}",
    "{{ __import__('os').system('RUN') }}",
    "{{ open('MARK', 'w') }}",
    "{{ eval('1') }}",
    "{{ exec('import os') }}",
    "{% do messages.append(1) %}",
    "{% debug %}",
    "{% set messages[0].role = 'system' %}",
    "{{ messages.append({}) }}",
    "{{ messages.clear() }}",
    "{{ messages[0].update(role='x') }}",
    "{{ messages[0].pop('role') }}",
    "{{ messages[0].setdefault('x', 1) }}",
    "{{ messages.sort() }}{{ messages.reverse() }}",
    "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    "{% set n = namespace(__init__=1) %}{{ n.__init__.__globals__ }}",
    "{% raw %}{{ ''.__class__ }}{% endraw %}",
    "{# {{ ''.__class__ }} #}",
    "{{ 'a' if True else ''.__class__ }}",
    "{% trans %}x{% endtrans %}",
    "{% autoescape true %}{{ ''.__class__ }}{% endautoescape %}",
    "# for c in ().__class__.__base__.__subclasses__()",
    "${ ''.__class__ }<%= system('RUN') %>#{7*7}{{7*'7'}}",
    "{{ strftime_now('%n' * 1000) }}",
    "{{ strftime_now('\\x00') }}",
    "{{ strftime_now('\\ud800') }}",
]
BOMBS = [
    "{{ 'x' * 10 ** 12 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ 2 ** 10000000 }}",
    "{{ [0] * 10 ** 11 }}",
    "{{ (0,) * 10 ** 11 }}",
    "{{ 'x' | center(10 ** 11) }}",
    "{{ '%1000000000000d' % 1 }}",
    "{{ '{:1000000000000}'.format(1) }}",
    "{{ '{0:>{1}}'.format('x', 10 ** 12) }}",
    "{{ 'x'.ljust(10 ** 11) }}{{ 'x'.zfill(10 ** 11) }}",
    "{{ ('\\t' * 100000).expandtabs(10 ** 7) }}",
    "{{ ('a' * 10000).replace('', 'b' * 10000).replace('', 'c' * 10000) }}",
    "{{ range(10 ** 9) | list }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
    "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% set n = namespace(x=3) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{% for i in [messages] recursive %}{{ loop([messages]) }}{% endfor %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "{{ " + "not " * 5000 + "1 }}",
    "{{ 1" + " + 1" * 20000 + " }}",
    "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
    "{% for x in [1] %}" * 30 + "{% endfor %}" * 30,
    "{{ 'a' | wordwrap(1) * 100000 }}",
    "{{ ('a ' * 200000) | wordwrap(1) | length }}",
    "{{ ('<' * 200000) | striptags | length }}",
    "{{ (('a' * 50) ~ '!') | urlize }}",
    "{{ messages | tojson(indent=10 ** 9) }}",
    "{{ 'x' | indent(10 ** 11) }}",
    "{{ 'a' | batch(10 ** 9, 'x') | list }}",
    "{{ 'a' | slice(10 ** 9) | list | length }}",
    "{{ 1 | round(10 ** 9) }}{{ (1.5) | round(-10 ** 9) }}",
    "{{ '1' * 4000 | int }}{{ ('1' * 1000000) | int }}",
    "{{ ('9' * 100000) | int * 1 }}",
    "{{ 1 << 10 ** 10 }}",
    "{{ cycler(*range(10 ** 8)) }}",
    "{{ dict(**dict.fromkeys(range(10 ** 8))) }}",
    "{{ joiner('x' * 10 ** 10)() }}",
    "{{ range(0, 10 ** 18, 10 ** 12) | list | length }}",
    "{{ bytes(10 ** 11) }}{{ ''.encode().ljust(10 ** 11) }}",
    "{{ 'a'.encode().hex() * 10 ** 11 }}",
    "{{ ('a' * 10 ** 6).split('a') | map('length') | sum * 10 ** 9 }}",
    "{{ ''.maketrans('', '', 'a' * 10 ** 8) }}",
    "{{ ('x' * 10 ** 6) | replace('x', 'x' * 10 ** 6) | length }}",
    "{{ (1).to_bytes(10 ** 11, 'big') }}",
    "{{ ((1).from_bytes('a'.encode() * 1000000, 'big')) ** 2 }}",
    "{{ '%s' % (('x' * 10 ** 8,) * 10 ** 3 | join) }}",
]  # fmt: skip
CORPUS = [*WALKS, *DISGUISES, *FORMATS, *CODE, *BOMBS]

CHILD = """
import json, sys, threading, time
sys.path.insert(0, ENGINE_SOURCES)
sys.path.append(ENGINE)
from jan_llamacpp.template import ChatTemplate, TemplateError
for line in sys.stdin:
    began = time.monotonic()
    try:
        text = ChatTemplate(json.loads(line), "<s>", "</s>").render([{"role": "user", "content": "hello"}])
        told = {"text": text[:2000]}
    except TemplateError as error:
        told = {"reason": error.reason, "message": str(error)}
    told["seconds"] = time.monotonic() - began
    # Not getrusage: its peak is handed on by the process that started this one.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    told["memory"] = int(status["VmHWM"].split()[0]) * 1024
    print(json.dumps(told), flush=True)
"""
REASONS = {"too_large", "syntax", "unsafe", "refused", "too_slow", "too_much_memory", "failed"}
LEAKS = ("<class", "<module", "<function", "<built-in", "built-in method", "root:", "subprocess", "0x7", "environ(")
"""What the text of an attack that got somewhere would show."""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_no_hostile_template_runs_code_hangs_or_eats_memory(engine_dir: Path, tmp_path: Path) -> None:
    assert len(CORPUS) >= 150
    sources = [payload.replace("RUN", RUN).replace("MARK", MARK) for payload in CORPUS]
    package = Path(__file__).parents[1] / "src"
    code = CHILD.replace("ENGINE_SOURCES", repr(str(package))).replace("ENGINE", repr(str(engine_dir)))
    done = subprocess.run(
        [sys.executable, "-c", code], input="".join(json.dumps(source) + "\n" for source in sources),
        capture_output=True, text=True, timeout=400, cwd=tmp_path,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    last = sources[len(answers)][:200] if len(answers) < len(sources) else ""
    assert len(answers) == len(sources), f"it ended the process ({done.returncode}): {last}\n{done.stderr[-2000:]}"
    for source, told in zip(sources, answers, strict=True):
        where = f"{source[:200]} -> {told}"
        if "reason" in told:
            assert told["reason"] in REASONS, where
            assert len(told["message"]) < 1000, where
        else:
            assert not any(leak in told["text"] for leak in LEAKS), where
        assert told["seconds"] < MAX_SECONDS + 3, where
    assert answers[-1]["memory"] < 1 << 30
    assert not list(tmp_path.iterdir()), "something ran"
