"""Templates render as transformers renders them; what goes wrong is said clearly."""

import json
from pathlib import Path

import pytest
from aphrodite_engine.errors import ConfigError, ModelError, RequestError
from aphrodite_engine.text.chat_template import ChatTemplate
from aphrodite_engine.text.gguf_tokenizer import gguf_tokenizer
from aphrodite_engine.text.template_source import directory_chat_template, gguf_chat_template
from transformers.utils.chat_template_utils import render_jinja_template

DATA = Path(__file__).parent / "data" / "tokenizers"
TOKENIZER = gguf_tokenizer(json.loads((DATA / "smollm2.json").read_text())["metadata"])
NAMES = {
    "bos_token": TOKENIZER.token_text(TOKENIZER.bos_id),
    "eos_token": TOKENIZER.token_text(TOKENIZER.eos_id),
    "unk_token": TOKENIZER.token_text(TOKENIZER.special.unknown),
    "pad_token": TOKENIZER.token_text(TOKENIZER.special.padding),
}
CHATML = """{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
HEADERS = """{{- bos_token }}
{%- if tools is not none %}{{ tools | tojson(indent=2) }}{% endif %}
{%- for message in messages %}
    {{- '<|head|>' + message.role + '<|/head|>\n\n' + message.content | trim + eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|head|>assistant<|/head|>\n\n' }}{%- endif %}"""
ALTERNATING = """{{ bos_token }}
{%- if messages[0].role == 'system' %}
  {%- set lead = messages[0].content %}{% set rest = messages[1:] %}
{%- else %}{%- set lead = '' %}{% set rest = messages %}{% endif %}
{%- for message in rest %}
  {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
    {{- raise_exception('Roles must alternate user/assistant') }}
  {%- endif %}
  {%- if message.role == 'user' %}[INST] {{ lead if loop.last }}{{ message.content }} [/INST]
  {%- else %} {{ message.content }}{{ eos_token }}{% continue %}{% endif %}
{%- endfor %}"""
TURNS = """{% for message in messages %}{% generation %}<turn>{{ message.role }}
{% if message.content is string %}{{ message.content | trim }}
{% else %}{% for item in message.content %}{{ item.text | trim }}{% endfor %}{% endif %}</turn>
{% endgeneration %}{% endfor %}"""
PARTS = """{% for message in messages %}{{ message.role }}:
{% for part in message['content'] %}{{ part['text'] }}{% endfor %};{% endfor %}"""
TEMPLATES = {"chatml": CHATML, "headers": HEADERS, "alternating": ALTERNATING, "turns": TURNS}
CHAT = [
    {"role": "system", "content": "Be <brief> & kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": 'Hello "you"'},
    {"role": "user", "content": "  And?\n"},
]
TOOLS = [{"type": "function", "function": {"name": "é", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("chat", [CHAT, CHAT[1:], CHAT[1:2]], ids=["system", "turns", "one"])
@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "tools"])
def test_rendered_as_transformers_does(name, chat, prompt, tools):
    (want,), _ = render_jinja_template(
        [chat], tools, chat_template=TEMPLATES[name], add_generation_prompt=prompt, **NAMES
    )
    template = ChatTemplate(TEMPLATES[name], TOKENIZER)
    assert template.render(chat, tools=tools, add_generation_prompt=prompt) == want


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_last_message_is_continued_as_transformers_does(name):
    chat = [*CHAT[1:], {"role": "assistant", "content": "Well, "}]
    (want,), _ = render_jinja_template(
        [chat], chat_template=TEMPLATES[name], continue_final_message=True, **NAMES
    )
    template = ChatTemplate(TEMPLATES[name], TOKENIZER)
    assert template.render(chat, continue_final_message=True) == want


def test_tokens_are_those_of_the_text_and_no_more():
    template = ChatTemplate(CHATML, TOKENIZER)
    tokens = template.tokens([{"role": "user", "content": "the"}])
    assert tokens[0] == TOKENIZER.bos_id
    text = template.render([{"role": "user", "content": "the"}])
    assert TOKENIZER.decode(tokens, skip_special=False) == text


def test_parts_become_text_and_text_becomes_parts():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    render = ChatTemplate(CHATML, TOKENIZER).render
    assert "user\na\nb<" in render([{"role": "user", "content": parts}])
    render = ChatTemplate(PARTS, TOKENIZER).render
    assert render([{"role": "user", "content": "a"}]) == "user:\na;"
    assert render([{"role": "user", "content": parts}]) == "user:\nab;"
    assert render([{"role": "assistant", "content": None}]) == "assistant:\n;"


def test_no_content_is_empty_text():
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None}]
    assert "assistant\n<" in ChatTemplate(CHATML, TOKENIZER).render(chat)


def test_variables_reach_the_template_but_do_not_replace_messages():
    source = "{{ thinking }}{{ bos_token }}{{ messages | length }}"
    render = ChatTemplate(source, TOKENIZER).render
    assert (
        render(CHAT[:1], variables={"thinking": "on", "bos_token": "B", "messages": []}) == "onB1"
    )


def test_tools_choose_the_template_made_for_them():
    template = ChatTemplate("plain", TOKENIZER, tool_source="{{ tools[0].function.name }}")
    assert template.render(CHAT) == "plain"
    assert template.render(CHAT, tools=[]) == "plain"
    assert template.render(CHAT, tools=TOOLS) == "é"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages is empty"),
        ([{"content": "x"}], r"messages\[0\] has no role"),
        ([{"role": "user", "content": 5}], r"messages\[0\].content must be text"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            r"content\[0\] is of type 'image_url', but this model reads text only",
        ),
        ([{"role": "assistant", "content": "x"}], "Roles must alternate user/assistant"),
        ([{"role": "system", "content": "x"}] * 2, "Roles must alternate"),
    ],
)
def test_bad_messages_are_the_requests_fault(messages, message):
    with pytest.raises(RequestError, match=message):
        ChatTemplate(ALTERNATING, TOKENIZER).render(messages)


@pytest.mark.parametrize(
    "source",
    [
        "{{ nothing.at.all }}",
        "{{ 1 // 0 }}",
        "{{ messages[9] | trim }}{{ messages + 1 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
    ],
)
def test_a_template_that_fails_does_not_take_the_server_with_it(source):
    with pytest.raises(RequestError, match="cannot render these messages"):
        ChatTemplate(source, TOKENIZER).render(CHAT)


def test_no_template():
    with pytest.raises(RequestError, match="--chat-template"):
        ChatTemplate(None, TOKENIZER).render(CHAT)


def test_a_template_that_is_none():
    with pytest.raises(ModelError, match="no valid Jinja"):
        ChatTemplate("{% for x in %}", TOKENIZER)


def test_a_hidden_last_message_cannot_be_continued():
    with pytest.raises(RequestError, match="cannot be continued") as caught:
        ChatTemplate("hello", TOKENIZER).render(CHAT, continue_final_message=True)
    assert caught.value.field == "continue_final_message"


def test_time_is_what_the_template_asks_for():
    text = ChatTemplate("{{ strftime_now('%Y') }}", TOKENIZER).render(CHAT)
    assert text.isdigit()
    assert len(text) == 4


def test_sources_of_a_gguf_file(tmp_path):
    metadata = {"tokenizer.chat_template": "own", "tokenizer.chat_template.tool_use": "tools"}
    template = gguf_chat_template(metadata, TOKENIZER)
    assert (template.render(CHAT), template.render(CHAT, tools=TOOLS)) == ("own", "tools")
    assert gguf_chat_template({}, TOKENIZER).source is None
    file = tmp_path / "mine.jinja"
    file.write_text("mine")
    assert gguf_chat_template(metadata, TOKENIZER, str(file)).source == "mine"
    assert gguf_chat_template(metadata, TOKENIZER, "{{ 1 }}").source == "{{ 1 }}"
    with pytest.raises(ConfigError, match="neither a file nor a Jinja template"):
        gguf_chat_template(metadata, TOKENIZER, "nonesuch.jinja")
    with pytest.raises(ModelError, match="should be text, but holds 5"):
        gguf_chat_template({"tokenizer.chat_template": 5}, TOKENIZER)


def test_sources_of_a_directory(tmp_path):
    assert directory_chat_template(tmp_path, TOKENIZER).source is None
    config = tmp_path / "tokenizer_config.json"
    named = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
    config.write_text(json.dumps({"chat_template": named}))
    template = directory_chat_template(tmp_path, TOKENIZER)
    assert (template.render(CHAT), template.render(CHAT, tools=TOOLS)) == ("d", "t")
    config.write_text(json.dumps({"chat_template": "single"}))
    assert directory_chat_template(tmp_path, TOKENIZER).source == "single"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert directory_chat_template(tmp_path, TOKENIZER).source == "file"
    assert directory_chat_template(tmp_path, TOKENIZER, "{{ 2 }}").source == "{{ 2 }}"
    (tmp_path / "chat_template.jinja").unlink()
    config.write_text("{")
    with pytest.raises(ModelError, match="no valid JSON"):
        directory_chat_template(tmp_path, TOKENIZER)
