// OpenAI's own client for JavaScript.

import OpenAI from "openai";
import { main, said } from "./asking.mjs";

const TOOL = { type: "function", function: { name: "now", parameters: { type: "object", properties: {} } } };

function ask(asked, more) {
  const client = new OpenAI({ baseURL: asked.url, apiKey: "none" });
  const messages = [{ role: "user", content: asked.question }];
  return client.chat.completions.create({ model: asked.model, messages, ...asked.extra, ...asked.options, ...more });
}

async function answer(asked) {
  const { choices, usage } = await ask(asked);
  return said(choices[0].message.content, choices[0].finish_reason, usage.prompt_tokens, usage.completion_tokens, 1);
}

async function stream(asked) {
  const pieces = [];
  let finish, usage;
  for await (const chunk of await ask(asked, { stream: true, stream_options: { include_usage: true } })) {
    if (chunk.choices[0]?.delta.content) pieces.push(chunk.choices[0].delta.content);
    finish = chunk.choices[0]?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  return said(pieces.join(""), finish, usage.prompt_tokens, usage.completion_tokens, pieces.length);
}

async function tools(asked) {
  return { text: (await ask(asked, { tools: [TOOL] })).choices[0].message.content };
}

async function structured(asked) {
  return { text: (await ask(asked, { response_format: { type: "json_object" } })).choices[0].message.content };
}

await main({ answer, stream, tools, structured });
