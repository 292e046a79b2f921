"""Asks the providers that the environment names, by their official Python SDKs, and prints answers as lines of JSON.

What is parsed is printed as the SDK has it, what is raw as text. Nothing here knows whether the agent is in between.
"""

import json
import os

import anthropic
import openai
from google import genai

MESSAGES = [{"role": "user", "content": "hello"}]


def show(what, value):
    print(json.dumps([f"python {what}", value], sort_keys=True), flush=True)


def parsed(answer):
    return answer.model_dump(mode="json")


def ask_anthropic():
    client = anthropic.Anthropic(api_key="sk-of-the-tool", max_retries=0)
    ask = {"model": "claude-sonnet-4-5", "max_tokens": 64, "messages": MESSAGES}
    show("anthropic plain", parsed(client.messages.create(**ask)))
    show("anthropic raw", client.messages.with_raw_response.create(**ask).http_response.text)
    with client.messages.stream(**ask) as stream:
        show("anthropic stream", [parsed(event) for event in stream])
    with client.messages.with_streaming_response.create(stream=True, **ask) as answer:
        show("anthropic raw stream", b"".join(answer.iter_bytes()).decode())
    try:
        client.messages.create(**{**ask, "model": "overloaded"})
    except anthropic.APIStatusError as error:
        show("anthropic error", [error.status_code, error.body])


def ask_openai():
    client = openai.OpenAI(api_key="sk-of-the-tool", max_retries=0)
    chat = {"model": "gpt-4o", "messages": MESSAGES}
    show("openai chat", parsed(client.chat.completions.create(**chat)))
    options = {"stream": True, "stream_options": {"include_usage": True}}
    show("openai chat stream", [parsed(chunk) for chunk in client.chat.completions.create(**chat, **options)])
    show("openai response", parsed(client.responses.create(model="gpt-5", input="hello")))
    show("openai response stream", [parsed(event) for event in client.responses.create(model="gpt-5", input="hello", stream=True)])
    show("openai embedding", parsed(client.embeddings.create(model="text-embedding-3-small", input="hello")))
    with client.chat.completions.with_streaming_response.create(**chat, **options) as answer:
        show("openai raw stream", b"".join(answer.iter_bytes()).decode())


def ask_google():
    options = {"base_url": os.environ["GOOGLE_API_BASE_URL"]}
    client = genai.Client(api_key="sk-of-the-tool", vertexai=False, http_options=options)
    ask = {"model": "gemini-2.5-flash", "contents": "hello"}
    # Its headers differ where one of two sides says how the body is framed; the rest is compared.
    leave_out = {"sdk_http_response"}
    show("google plain", client.models.generate_content(**ask).model_dump(mode="json", exclude=leave_out))
    stream = client.models.generate_content_stream(**ask)
    show("google stream", [chunk.model_dump(mode="json", exclude=leave_out) for chunk in stream])


if __name__ == "__main__":
    ask_anthropic()
    ask_openai()
    ask_google()
