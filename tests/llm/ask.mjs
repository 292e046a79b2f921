// Asks the providers that the environment names, by their official JavaScript SDKs, and prints each answer as one line
// of JSON.

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const messages = [{ role: "user", content: "hello" }];

function show(what, value) {
  console.log(JSON.stringify([`node ${what}`, value]));
}

async function all(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

const anthropic = new Anthropic({ apiKey: "sk-of-the-tool", maxRetries: 0 });
const ask = { model: "claude-sonnet-4-5", max_tokens: 64, messages };
show("anthropic plain", await anthropic.messages.create(ask));
show("anthropic raw", await (await anthropic.messages.create(ask).asResponse()).text());
show("anthropic stream", await all(await anthropic.messages.create({ ...ask, stream: true })));
show("anthropic raw stream", await (await anthropic.messages.create({ ...ask, stream: true }).asResponse()).text());
try {
  await anthropic.messages.create({ ...ask, model: "overloaded" });
} catch (error) {
  show("anthropic error", [error.status, error.error]);
}

const openai = new OpenAI({ apiKey: "sk-of-the-tool", maxRetries: 0 });
const chat = { model: "gpt-4o", messages };
const streamed = { ...chat, stream: true, stream_options: { include_usage: true } };
show("openai chat", await openai.chat.completions.create(chat));
show("openai chat stream", await all(await openai.chat.completions.create(streamed)));
show("openai raw stream", await (await openai.chat.completions.create(streamed).asResponse()).text());
show("openai response", await openai.responses.create({ model: "gpt-5", input: "hello" }));
show("openai response stream", await all(await openai.responses.create({ model: "gpt-5", input: "hello", stream: true })));
show("openai embedding", await openai.embeddings.create({ model: "text-embedding-3-small", input: "hello" }));
